{ lib, pkgs, runCommandLocal, stowage, writeText, overridable }:

# Lists what an image is made of (SBOM): a file in the format of SPDX; its attribute `cyclonedx` is one in the
# format of CycloneDX.
#
# What evaluation knows of packages goes into a table by store path, without string context: the list
# builds no package, and the image has none the more. Which of them are in the image, the program
# knows. Packages are found from what the image is made of, by what they are built with.
lib.fix (self:
{
  # The image spec.
  spec
  # What the image is called, `name:tag`.
, name
  # Derivations that the image is made of.
, roots
  # Texts that mention others, such as its configuration.
, texts
  # Further packages that may be in the image: those of which only a text is known, and which `pkgs` doesn't
  # have by their own names.
, packages ? [ ]
  # Who supplies packages, where they don't say it themselves (`meta.supplier`).
, supplier ? "nixpkgs"
}@arguments: overridable self arguments (
  let
    inherit (builtins) attrNames concatMap elemAt filter getContext head isAttrs isList isString match parseDrvName
      replaceStrings tryEval unsafeDiscardStringContext;

    # The value, or another if it can't be evaluated: sets have packages that throw.
    try = default: value: let tried = tryEval value; in if tried.success then tried.value else default;
    # Lists in lists, as one; without what can't be evaluated.
    flat = value:
      let tried = tryEval value; in
      if !tried.success then [ ]
      else if isList tried.value then concatMap flat tried.value
      else [ tried.value ];
    text = value: let tried = try null value; in if isString tried && tried != "" then unsafeDiscardStringContext tried else null;
    textsOf = value: filter (found: found != null) (map text (flat value));
    pathOf = drv: text (drv.outPath or null);

    # The package that a text mentions by its derivation, if `pkgs` has it by its own name.
    find = drvPath:
      let
        drvName = head (match "[^-]*-(.*)[.]drv" (baseNameOf drvPath));
        parsed = parseDrvName drvName;
        major = match "([0-9]+)([.].*)?" parsed.version;
        names = [ parsed.name (replaceStrings [ "-" "." ] [ "_" "_" ] parsed.name) ]
          ++ lib.optionals (major != null) [ "${parsed.name}_${head major}" "${parsed.name}${head major}" ];
        isIt = package: try false (unsafeDiscardStringContext (package.drvPath or "") == drvPath);
      in
      lib.take 1 (filter isIt (map (found: try null (pkgs.${found} or null)) names));
    mentioned = value:
      let context = try { } (getContext value); in
      concatMap find (filter (path: match ".*[.]drv" path != null) (attrNames context));
    isText = value: try false (isString value);

    # What a package may have in its closure, as far as it says so itself.
    inputs = drv:
      concatMap (key: flat (drv.${key} or [ ])) [ "buildInputs" "propagatedBuildInputs" "paths" "sbomRoots" ]
      ++ concatMap (key: lib.optionals (isText (drv.${key} or null)) (mentioned drv.${key})) [ "text" "pkgs" ];
    # What packages have in theirs that is no input of theirs.
    common = map (get: try null (get pkgs)) [
      (set: set.stdenv.cc.libc or null)
      (set: set.stdenv.cc.cc or null)
      (set: set.runtimeShellPackage or set.bash or null)
      (set: set.libidn2 or null)
      (set: set.libunistring or null)
    ];
    items = drvs: filter ({ key, ... }: key != null)
      (map (drv: { key = pathOf drv; inherit drv; }) (filter (drv: try false (lib.isDerivation drv)) drvs));
    found = builtins.genericClosure {
      startSet = items (flat [ roots packages (map mentioned texts) common ]);
      operator = { drv, ... }: items (inputs drv);
    };

    licence = given:
      if isString given then { name = given; }
      else if !isAttrs given then { }
      else if text (given.spdxId or null) != null then { spdx = text given.spdxId; }
      else if given ? fullName || given ? shortName then {
        name = text (given.fullName or given.shortName);
        url = text (given.url or null);
      }
      # A compound, where nixpkgs has such.
      else { spdx = text (lib.licenses.toSPDX or (_: null) given); };
    factsOf = drv: output:
      let
        meta = try { } (drv.meta or { });
        identifiers = try { } (meta.identifiers or { });
        parsed = parseDrvName (let name = text (drv.name or null); in if name == null then "" else name);
        or' = value: other: if value != null then value else other;
        first = list: if list == [ ] then null else head list;
      in
      lib.filterAttrs (_: value: value != null && value != [ ]) {
        pname = or' (text (drv.pname or null)) parsed.name;
        version = or' (text (drv.version or null)) parsed.version;
        inherit output;
        licenses = map (given: lib.filterAttrs (_: value: value != null) (licence given)) (flat (meta.license or [ ]));
        homepage = first (textsOf (meta.homepage or [ ]));
        description = text (meta.description or null);
        supplier = text (meta.supplier or null);
        cpe = text (identifiers.cpe or null);
        purls = textsOf (identifiers.purls or identifiers.purl or [ ]);
        urls = textsOf (drv.src.urls or drv.src.url or [ ]);
      };
    rows = { drv, ... }: concatMap
      (output:
        let path = pathOf (drv.${output} or drv); in
        lib.optional (path != null) { name = path; value = factsOf drv output; })
      (textsOf (drv.outputs or [ "out" ]));

    baseName = baseNameOf (elemAt (match "(.*):[^:]*" name) 0);
    facts = writeText "${baseName}-packages.json" (builtins.toJSON (builtins.listToAttrs (concatMap rows found)));
    write = format: extension: runCommandLocal "${baseName}.${extension}"
      { passthru = { inherit facts spdx cyclonedx; }; } ''
      ${stowage}/bin/stowage sbom ${spec} --format ${format} --meta ${facts} --name ${lib.escapeShellArg name} \
        --supplier ${lib.escapeShellArg supplier} > $out
    '';
    spdx = write "spdx" "spdx.json";
    cyclonedx = write "cyclonedx" "cdx.json";
  in
  spdx
))
