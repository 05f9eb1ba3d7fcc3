# The program's crates that a build with some features needs: Cargo.toml and Cargo.lock without all others.
# Cargo resolves every crate in these two files, and nixpkgs makes two derivations of each crate in
# Cargo.lock, also of those for tests and benchmarks.
#
# Needs nothing but builtins.
{
  # The features of Cargo.toml that the program has.
  features
  # The version of the program, in place of the release's. With a constant version, a release does not rebuild
  # the program.
, version ? null
}:
let
  inherit (builtins) attrNames concatMap concatStringsSep elem filter fromTOML genericClosure
    groupBy head isAttrs isList listToAttrs map match readFile removeAttrs toJSON;

  manifest = fromTOML (readFile ../Cargo.toml);
  lock = fromTOML (readFile ../Cargo.lock);

  # Features and, as `dep:NAME`, optional dependencies that they turn on.
  enabled = map (item: item.key) (genericClosure {
    startSet = map (key: { inherit key; }) features;
    operator = { key }: map (key: { inherit key; }) (manifest.features.${key} or [ ]);
  });
  isNeeded = name: !(manifest.dependencies.${name}.optional or false) || elem "dep:${name}" enabled;
  dependencies = filter isNeeded (attrNames manifest.dependencies);

  # Every TOML value is also JSON, except for tables.
  toTOML = value:
    if isAttrs value then "{ ${concatStringsSep ", " (map (key: "${toJSON key} = ${toTOML value.${key}}") (attrNames value))} }"
    else if isList value then "[ ${concatStringsSep ", " (map toTOML value)} ]"
    else toJSON value;
  lines = table: concatStringsSep "" (map (key: "${toJSON key} = ${toTOML table.${key}}\n") (attrNames table));
  only = names: set: listToAttrs (map (name: { inherit name; value = set.${name}; }) names);

  # Cargo.lock names a dependency as `NAME`, `NAME VERSION` or `NAME VERSION (SOURCE)`.
  packages = groupBy (package: package.name) lock.package;
  find = dependency:
    let
      parts = match "([^ ]+)( ([^ ]+))?.*" dependency;
      version = builtins.elemAt parts 2;
    in
    filter (package: version == null || package.version == version) packages.${head parts};
  id = package: "${package.name} ${package.version}";
  item = package: { key = id package; inherit package; };
  nameOf = dependency: head (match "([^ ]+).*" dependency);
  ofOwn = package:
    if package.name != manifest.package.name then package
    else package // {
      version = manifest'.package.version;
      dependencies = filter (dependency: elem (nameOf dependency) dependencies) package.dependencies;
    };
  locked = genericClosure {
    startSet = map (package: item (ofOwn package)) packages.${manifest.package.name};
    operator = { package, ... }: map item (concatMap find (package.dependencies or [ ]));
  };

  manifest' = {
    package = removeAttrs manifest.package [ "readme" ] // (if version == null then { } else { inherit version; });
    features = only (filter (feature: manifest.features ? ${feature}) enabled) manifest.features // { default = features; };
    dependencies = only dependencies manifest.dependencies;
    inherit (manifest) lints profile workspace;
  };
in
{
  manifest = lines (manifest' // {
    profile = removeAttrs manifest.profile [ "dev" ];
  });
  lock = "version = ${toJSON lock.version}\n" + concatStringsSep ""
    (map ({ package, ... }: "\n[[package]]\n${lines package}") (builtins.sort (a: b: a.key < b.key) locked));
  inherit (manifest) package workspace;
}
