# Packages for another platform than that of the machine that builds. Nothing is compiled: each
# program is the header of one for the other platform, and fails to start on this machine.
{ lib, crossSystem, native, pkgs }:
let
  hostPlatform = lib.systems.elaborate crossSystem;

  # The architectures' numbers in ELF headers, in octal.
  machine = { aarch64-linux = "267"; }.${crossSystem};

  foreign = package: native.runCommand package.name
    {
      passthru = { pname = package.pname or package.name; version = package.version or ""; };
      meta = package.meta or { };
    } ''
    mkdir -p $out/bin
    for program in ${package}/bin/*; do
      printf '\177ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\${machine}\0\1\0\0\0' > $out/bin/''${program##*/}
      chmod +x $out/bin/''${program##*/}
    done
  '';
in
lib.mapAttrs (_: value: if lib.isDerivation value then foreign value else value)
  (import ./programs.nix { inherit lib; pkgs = native; boot = { inherit (native) busybox; mdbookDirectory = null; }; })
  // {
  rustPlatform.buildRustPackage = arguments: foreign (native.rustPlatform.buildRustPackage arguments);
  buildPackages = native;
  pkgsBuildBuild = native;
  pkgsBuildHost = native;
  stdenv = native.stdenv // { inherit hostPlatform; targetPlatform = hostPlatform; };
  go = { inherit (hostPlatform.go) GOARCH GOOS; };
  runtimeShell = "${pkgs.bash}/bin/bash";
  runtimeShellPackage = pkgs.bash;
}
