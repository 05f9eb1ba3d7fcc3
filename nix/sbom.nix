{ lib, pkgs, runCommandLocal, stowage, writeText, overridable }:

# Lists the packages of an image (SBOM): a file in the format of SPDX. Its attribute `cyclonedx` is a file in the
# format of CycloneDX.
#
# Evaluation writes facts about packages into a table by store path. The table has no string context, so it builds
# no package and adds none to the image. It may have more packages than the image: the program picks those of the
# image. The search for packages begins with `roots` and `texts`, and follows build inputs.
lib.fix (self:
{
  # The image spec.
  spec
  # The name of the image, `name:tag`.
, name
  # Derivations that the image is made of. A derivation with `sbomSet` names the package set that its packages
  # come from, if that may be another one than `pkgs`.
, roots
  # Texts that mention more derivations, such as the image's configuration.
, texts
  # More packages that may be in the image. Needed for packages that only a text mentions, if the package set does
  # not have them by their own names.
, packages ? [ ]
  # SBOMs of the base image (SPDX or CycloneDX, as JSON), to which this one refers. A base image that this library made
  # needs none: its packages are in the list.
, bases ? [ ]
  # The supplier of packages without `meta.supplier`.
, supplier ? "nixpkgs"
}@arguments: overridable "sbom" self arguments (
  let
    inherit (builtins) attrNames concatMap elemAt filter getContext head isAttrs isList isString match parseDrvName
      replaceStrings tryEval unsafeDiscardStringContext;

    # Returns the value, or the default if evaluation of the value fails: package sets have values that throw.
    try = default: value: let tried = tryEval value; in if tried.success then tried.value else default;
    # Flattens nested lists. Leaves out items whose evaluation fails.
    flat = value:
      let tried = tryEval value; in
      if !tried.success then [ ]
      else if isList tried.value then concatMap flat tried.value
      else [ tried.value ];
    text = value: let tried = try null value; in if isString tried && tried != "" then unsafeDiscardStringContext tried else null;
    textsOf = value: filter (found: found != null) (map text (flat value));
    pathOf = drv: text (drv.outPath or null);

    # The package sets that the packages come from: `pkgs`, and the set of an image of names.
    sets = map (root: root.sbomSet) (filter (root: isAttrs root && root ? sbomSet) (flat roots)) ++ [ pkgs ];

    # Returns the package of a derivation in a list, if one of the sets has the package by its own name.
    find = drvPath:
      let
        drvName = head (match "[^-]*-(.*)[.]drv" (baseNameOf drvPath));
        parsed = parseDrvName drvName;
        major = match "([0-9]+)([.].*)?" parsed.version;
        names = [ parsed.name (replaceStrings [ "-" "." ] [ "_" "_" ] parsed.name) ]
          ++ lib.optionals (major != null) [ "${parsed.name}_${head major}" "${parsed.name}${head major}" ];
        isIt = package: try false (unsafeDiscardStringContext (package.drvPath or "") == drvPath);
      in
      lib.take 1 (filter isIt (concatMap (set: map (found: try null (set.${found} or null)) names) sets));
    mentioned = value:
      let context = try { } (getContext value); in
      concatMap find (filter (path: match ".*[.]drv" path != null) (attrNames context));
    isText = value: try false (isString value);

    # Returns the packages that may be in the closure of a package, as far as its attributes name them.
    inputs = drv:
      concatMap (key: flat (drv.${key} or [ ])) [ "buildInputs" "propagatedBuildInputs" "paths" "sbomRoots" ]
      ++ concatMap (key: lib.optionals (isText (drv.${key} or null)) (mentioned drv.${key})) [ "text" "pkgs" ];
    # Packages that are often in closures without being inputs.
    common = concatMap
      (set: map (get: try null (get set)) [
        (set: set.stdenv.cc.libc or null)
        (set: set.stdenv.cc.cc or null)
        (set: set.runtimeShellPackage or set.bash or null)
        (set: set.libidn2 or null)
        (set: set.libunistring or null)
      ])
      sets;
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
      # A compound licence, in versions of nixpkgs that have these.
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
      { passthru = { inherit facts spdx cyclonedx roots texts; }; } ''
      ${stowage}/bin/stowage sbom ${spec} --format ${format} --meta ${facts} --name ${lib.escapeShellArg name} \
        --supplier ${lib.escapeShellArg supplier} ${lib.concatMapStrings (base: "--base ${base} ") bases}> $out
    '';
    spdx = write "spdx" "spdx.json";
    cyclonedx = write "cyclonedx" "cdx.json";
  in
  spdx
))
