# The directory to import packages from: `nixpkgs!CHANNEL`, `git!REPOSITORY!REV` or `path!DIRECTORY`. Uses no
# functions of nixpkgs, since nixpkgs itself may come from there.
pkgSource:
let
  inherit (builtins) elem elemAt filter isString length match split;

  parts = filter isString (split "!" pkgSource);
  part = elemAt parts;
  is = kind: count: part 0 == kind && length parts == count && !elem "" parts;
  # A commit must be on the default branch: other refs, such as those of pull requests, may contain code of
  # strangers.
  isCommit = match "[0-9a-f]{40}" (part 2) != null;
  revision = if isCommit then { rev = part 2; ref = "HEAD"; } else { ref = part 2; };
in
if is "nixpkgs" 2 && match "[A-Za-z0-9._-]+" (part 1) != null then
  fetchTarball "https://github.com/NixOS/nixpkgs/archive/${part 1}.tar.gz"
else if is "git" 3 then fetchGit ({ url = part 1; } // revision)
else if is "path" 2 then part 1
else throw "stowage.buildImageFromNames: `pkgSource` must be `nixpkgs!CHANNEL`, `git!REPOSITORY!REV` or `path!DIRECTORY`, not `${pkgSource}`"
