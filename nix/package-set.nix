{ lib, ownPkgs }:

# The package set in which names are looked up. Nothing is fetched before one is.
{
  # A package set, or null.
  pkgs
  # `nixpkgs!CHANNEL`, `git!REPOSITORY!REV` or `path!DIRECTORY`, or null.
, pkgSource
  # What the packages run on; null for what `pkgs` are for.
, system
}:
let
  complain = problem: throw "stowage.buildImageFromNames: ${problem}";

  parts = lib.splitString "!" pkgSource;
  part = lib.elemAt parts;
  is = kind: count: lib.head parts == kind && lib.length parts == count && !lib.elem "" parts;
  isRevision = builtins.match "[0-9a-f]{40}" (part 2) != null;

  source =
    if is "nixpkgs" 2 && builtins.match "[A-Za-z0-9._-]+" (part 1) != null then
      builtins.fetchTarball "https://github.com/NixOS/nixpkgs/archive/${part 1}.tar.gz"
    else if is "git" 3 then
      builtins.fetchGit ({ url = part 1; } // (if isRevision then { rev = part 2; allRefs = true; } else { ref = part 2; }))
    else if is "path" 2 then part 1
    else complain "`pkgSource` must be `nixpkgs!CHANNEL`, `git!REPOSITORY!REV` or `path!DIRECTORY`, not `${pkgSource}`";

  given = if pkgs != null then pkgs else ownPkgs;
  givenSystem = given.stdenv.hostPlatform.system;
  wantedSystem = if system != null then system else givenSystem;
in
if pkgSource != null then
  if pkgs != null then complain "`pkgs` and `pkgSource` both say where packages are from: give one of them"
  else import source { system = wantedSystem; }
else if wantedSystem == givenSystem then given
else
  import (given.path or (complain "`pkgs` are for ${givenSystem}, and have no `path` to import those for ${wantedSystem} from")) {
    system = wantedSystem; inherit (given) config overlays;
  }
