# Nix code that `stowage serve --packages` builds: a file that lists the blobs of an image of packages, or
# the packages that don't exist. With `sbom` and `listPackages`, a list of this file, the SBOM of the image and the
# packages. All arguments are strings. It is evaluated in restricted mode: the packages' code can read only its own source.
{
  # The program that serves. It may be outside of the store.
  program
  # The arguments of `buildImageFromNames`. Its own packages are these as well.
, name
, packages
  # The directory that the packages are imported from.
, source
, maxLayers
  # A file with popularity data, or nothing.
, popularity
  # Whether the list of packages (SBOM) is made as well, or nothing.
, sbom
  # Whether the packages are listed, or nothing.
, listPackages
}:
let
  pkgs = import source { system = builtins.currentSystem; };
  inStore = builtins.match "(${builtins.storeDir}/[^/]+)/bin/stowage" program;
  stowage =
    if inStore != null then builtins.storePath (builtins.head inStore)
    else
      pkgs.runCommand "stowage" { program = builtins.path { path = program; name = "stowage-program"; }; }
        "install -D $program $out/bin/stowage";
  # The program is also the builder, so that no builder has to be compiled before the first answer.
  library = import ./lib.nix { inherit pkgs stowage; };
  image = library.buildImageFromNames {
    inherit name packages;
    pkgSource = "path!${source}";
    maxLayers = builtins.fromJSON maxLayers;
    popularity = if popularity == "" then null else builtins.path { path = popularity; name = "popularity.json"; };
  };
in
[ image.json ] ++ (if sbom == "" then [ ] else [ image.sbom ]) ++ (if listPackages == "" then [ ] else image.packages)
