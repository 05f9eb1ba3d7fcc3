# The package set: a fixed point, to be extended by overlays as nixpkgs is.
#
#   boot.nix      what needs no shell: one static busybox, and files by their hash
#   stdenv.nix    runCommand, stdenv.mkDerivation
#   builders.nix  writeText, symlinkJoin, buildEnv, closureInfo …
#   debian.nix    a store path for each Debian package, relocated
#   programs.nix  these by the names that nixpkgs has for them
#   generate.nix  closures of any size, for benchmarks
{ system, overlays ? [ ] }:
let
  lib = import ./lib.nix;

  packages = self:
    let
      callPackage = lib.callPackageWith self;
      boot = import ./boot.nix { inherit lib system; };
      stdenv = import ./stdenv.nix { inherit lib system boot; };
    in
    {
      inherit lib system callPackage;
      pkgs = self;
      # What runs on the machine that builds: the same machine.
      buildPackages = self;
      newScope = scope: lib.callPackageWith (self // scope);
      extend = overlay: import ./. { inherit system; overlays = overlays ++ [ overlay ]; };
      go.GOARCH = "amd64";
      path = ./.;
    }
    // stdenv
    // import ./builders.nix { inherit lib; pkgs = self; }
    // { debs = import ./debian.nix { inherit lib boot; inherit (stdenv) runCommand; }; }
    // import ./programs.nix { inherit lib boot; pkgs = self; }
    // { generateClosure = callPackage ./generate.nix { }; };
in
lib.fix (lib.foldl' (f: overlay: lib.extends overlay f) packages overlays)
