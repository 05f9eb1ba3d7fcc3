# The part of `lib` that is about sources, packages and platforms.
lib:
let
  inherit (lib) any attrNames baseNameOf concatStringsSep dirOf elem extends filter functionArgs
    hasSuffix head intersectAttrs isAttrs isFunction last mapAttrs match optionalAttrs pathExists
    removePrefix splitString toFunction;
in
rec {
  # Files
  cleanSourceFilter = path: _type:
    !(elem (baseNameOf path) [ ".git" ".svn" ] || match "result(-.*)?|.*~" (baseNameOf path) != null);
  cleanSource = src: cleanSourceWith { inherit src; filter = cleanSourceFilter; };
  # Of a source that is filtered already, both filters hold.
  cleanSourceWith = { src, filter ? _: _: true, name ? src.name or "source" }:
    let
      origSrc = src.origSrc or src;
      both = path: type: src.filter or (_: _: true) path type && filter path type;
    in
    {
      inherit origSrc name;
      filter = both;
      outPath = builtins.path { path = origSrc; filter = both; inherit name; };
    };
  sourceByRegex = src: regexes: cleanSourceWith {
    inherit src;
    filter = path: _type:
      let below = removePrefix "${toString (src.origSrc or src)}/" (toString path); in
      any (regex: match regex below != null) regexes;
  };
  sourceFilesBySuffices = src: suffixes: cleanSourceWith {
    inherit src;
    filter = path: type: type == "directory" || any (suffix: hasSuffix suffix (baseNameOf path)) suffixes;
  };
  pathIsDirectory = path:
    pathExists path && (builtins.readDir (dirOf path)).${baseNameOf path} or null == "directory";

  # Packages
  makeOverridable = f: arguments:
    let
      result = f arguments;
      override = changes: makeOverridable f (arguments // toFunction changes arguments);
      again = g: makeOverridable (arguments': g (f arguments')) arguments;
    in
    if isAttrs result then
      result
      // { inherit override; overrideDerivation = g: again (result': result'.overrideDerivation g); }
      // optionalAttrs (result ? overrideAttrs) { overrideAttrs = g: again (result': result'.overrideAttrs g); }
    else result;
  callPackageWith = available: file: arguments:
    let
      f = if isFunction file then file else import file;
      missing = filter (name: !(functionArgs f).${name} && !(available ? ${name}) && !(arguments ? ${name})) (attrNames (functionArgs f));
    in
    if missing != [ ] then
      throw "callPackage: ${if isFunction file then "a function" else toString file} wants ${concatStringsSep ", " missing}, which this set does not have"
    else makeOverridable f (intersectAttrs (functionArgs f) available // arguments);
  callPackagesWith = available: file: arguments:
    mapAttrs (_: value: value) (callPackageWith available file arguments);
  makeScope = newScope: f:
    let
      self = f self // {
        newScope = scope: newScope (self // scope);
        callPackage = self.newScope { };
        overrideScope = overlay: makeScope newScope (extends overlay f);
        packages = f;
      };
    in
    self;
  recurseIntoAttrs = set: set // { recurseForDerivations = true; };
  dontRecurseIntoAttrs = set: set // { recurseForDerivations = false; };
  extendDerivation = condition: passthru: package:
    assert condition; package // passthru;
  addMetaAttrs = meta: package: package // { meta = package.meta or { } // meta; };
  setPrio = priority: addMetaAttrs { inherit priority; };
  lowPrio = setPrio 10;
  hiPrio = setPrio (-10);

  licenses = mapAttrs
    (shortName: spdxId: { inherit shortName spdxId; free = true; })
    { asl20 = "Apache-2.0"; mit = "MIT"; bsd3 = "BSD-3-Clause"; lgpl21Plus = "LGPL-2.1-or-later"; gpl3Plus = "GPL-3.0-or-later"; };
  platforms = rec {
    linux = [ "x86_64-linux" "aarch64-linux" ];
    darwin = [ "x86_64-darwin" "aarch64-darwin" ];
    unix = linux ++ darwin;
    all = unix;
  };
  systems = {
    flakeExposed = platforms.all;
    # What a platform is, out of a name such as "x86_64-linux".
    elaborate = system:
      let
        cpu = head (splitString "-" system);
        kernel = last (splitString "-" system);
        isLinux = kernel == "linux";
        isx86_64 = cpu == "x86_64";
      in
      {
        inherit system isLinux isx86_64;
        config = if isLinux then "${cpu}-unknown-linux-gnu" else "${cpu}-apple-darwin";
        linuxArch = if isx86_64 then "x86_64" else "arm64";
        parsed = { cpu.name = cpu; kernel.name = kernel; };
        go = { GOARCH = if isx86_64 then "amd64" else "arm64"; GOOS = kernel; };
        isDarwin = !isLinux;
        isAarch64 = !isx86_64;
        isUnix = true;
        is64bit = true;
        isGnu = isLinux;
        isMusl = false;
        isStatic = false;
        extensions.executable = "";
        canExecute = other: other.system == system;
      };
  };
  maintainers = { };
  teams = { };
  fetchers.proxyImpureEnvVars =
    [ "http_proxy" "https_proxy" "ftp_proxy" "all_proxy" "no_proxy" "HTTP_PROXY" "HTTPS_PROXY" "NO_PROXY" ];
}
