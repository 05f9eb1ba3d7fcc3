# The package set: a fixed point, to be extended by overlays as nixpkgs is.
#
#   boot.nix      what needs no shell: one static busybox, and files by their hash
#   stdenv.nix    runCommand, stdenv.mkDerivation
#   builders.nix  writeText, symlinkJoin, buildEnv, closureInfo …
#   debian.nix    a store path for each Debian package, relocated
#   programs.nix  these by the names that nixpkgs has for them
#   generate.nix  closures of any size, for benchmarks
#   cross.nix     packages for another platform than this machine's
{ system, crossSystem ? null, overlays ? [ ], config ? { } }:
let
  lib = import ./lib.nix;

  packages = self:
    let
      callPackage = lib.callPackageWith self;
      boot = import ./boot.nix { inherit lib system; };
      # Two stages: static programs relocate Debian's packages, and these build all else, as
      # in nixpkgs: with GNU's own tools, and no more of them than nixpkgs' stdenv has.
      bootStdenv = import ./stdenv.nix { inherit lib system; bash = boot.bash; initialPath = [ boot.busybox boot.bash ]; };
      debs = import ./debian.nix { inherit lib boot; inherit (bootStdenv) runCommand; salt = config.salt or ""; };
      stdenv = import ./stdenv.nix {
        inherit lib system;
        inherit (debs) bash;
        initialPath = with debs; [ coreutils findutils diffutils sed grep gawk tar gzip bzip2 make bash patch xz-utils ];
      };
    in
    {
      inherit lib system callPackage;
      pkgs = self;
      # What runs on the machine that builds, and what is built for: the same machine, but for cross.nix.
      buildPackages = self;
      targetPackages = self;
      pkgsBuildBuild = self;
      pkgsBuildHost = self;
      pkgsHostTarget = self;
      inherit config overlays;
      callPackages = lib.callPackagesWith self;
      newScope = scope: lib.callPackageWith (self // scope);
      extend = overlay: self.appendOverlays [ overlay ];
      appendOverlays = more: import ./. { inherit system crossSystem config; overlays = overlays ++ more; };
      pkgsCross.aarch64-multiplatform = import ./. { inherit system config overlays; crossSystem = "aarch64-linux"; };
      go = { inherit (self.stdenv.hostPlatform.go) GOARCH GOOS; };
      path = ./.;
    }
    // stdenv
    // import ./builders.nix { inherit lib; pkgs = self; }
    // { inherit debs; }
    // import ./programs.nix { inherit lib boot; pkgs = self; }
    // { generateClosure = callPackage ./generate.nix { }; }
    // lib.optionalAttrs (crossSystem != null) (import ./cross.nix {
      inherit lib crossSystem;
      pkgs = self;
      native = import ./. { inherit system config overlays; };
    });
in
lib.fix (lib.foldl' (f: overlay: lib.extends overlay f) packages overlays)
