{ lib, builderDerivation, overridable, storePaths }:

/* Counts how many packages of a set need each: for `buildImage { popularity = …; }`.

   The result is a file like the output of `stowage popularity`. It contains no store path, so it
   can be copied, and kept with the sources.

   Type: popularity :: AttrSet -> Derivation

   Example:
   popularity { packages = [ pkgs.git pkgs.curl pkgs.htop ]; }
*/
lib.fix (self:
{
  # Derivations or store paths of the packages that images can ask for by name. They are built.
  packages
, name ? "popularity.json"
}@arguments: overridable "popularity" self arguments (
  let paths = map (package: "${package}") (storePaths "popularity: `packages`" packages); in
  builderDerivation { inherit name; closure = paths; attributes.popularity.packages = paths; }
)
)
