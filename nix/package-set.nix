{ ownPkgs }:

# The package set in which names are looked up. Nothing is fetched before the first look-up.
{
  # A package set, or null.
  pkgs
  # `nixpkgs!CHANNEL`, `git!REPOSITORY!REV` or `path!DIRECTORY`, or null.
, pkgSource
  # The system of the packages; null for the system of `pkgs`.
, system
}:
let
  complain = problem: throw "stowage.buildImageFromNames: ${problem}";

  given = if pkgs != null then pkgs else ownPkgs;
  givenSystem = given.stdenv.hostPlatform.system;
  wantedSystem = if system != null then system else givenSystem;
in
if pkgSource != null then
  if pkgs != null then complain "`pkgs` and `pkgSource` both say where packages are from: give one of them"
  else import (import ./package-source.nix pkgSource) { system = wantedSystem; }
else if wantedSystem == givenSystem then given
else
  import (given.path or (complain "`pkgs` are for ${givenSystem}, and have no `path` to import those for ${wantedSystem} from")) {
    system = wantedSystem; inherit (given) config overlays;
  }
