# For flakes by flake-parts: `perSystem.stowage.images.NAME = { … }` (images.nix).
#
#   imports = [ inputs.stowage.flakeModules.default ];
{ flake-parts-lib, ... }:
{
  options.perSystem = flake-parts-lib.mkPerSystemOption ./images.nix;
}
