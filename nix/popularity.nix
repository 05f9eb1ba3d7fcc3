{ lib, builderDerivation, overridable, storePaths }:

/* Counts how many packages of a set need each: for `buildImage { popularity = …; }`.

   The result is a file as `stowage popularity` prints it. It names no store path, and so keeps
   none of the packages: it can as well be copied, and kept with the sources.

   Type: popularity :: AttrSet -> Derivation

   Example:
   popularity { packages = [ pkgs.git pkgs.curl pkgs.htop ]; }
*/
lib.fix (self:
{
  # Derivations or store paths: what images are asked for by. They are built.
  packages
, name ? "popularity.json"
}@arguments: overridable self arguments (
  let paths = map (package: "${package}") (storePaths packages); in
  builderDerivation { inherit name; closure = paths; attributes.popularity.packages = paths; }
)
)
