# The flakes of examples/, with these packages in place of their inputs.
{ pkgs }:
let
  inherit (pkgs) lib;
  system = pkgs.stdenv.hostPlatform.system;
  # No other platform's programs are there: what its images are called by, and what they are for, is.
  forArm = pkgs // { stowage = pkgs.stowage // { buildImage = arguments: pkgs.stowage.buildImage (arguments // { arch = "arm64"; }); }; };
  inputs = {
    nixpkgs = { inherit lib; };
    stowage.legacyPackages.${system} = pkgs // { pkgsCross.aarch64-multiplatform = forArm; };
  };
  packages = name: ((import (../../examples + "/${name}/flake.nix")).outputs inputs).packages.${system} or { };

  # In place of one that would be pulled.
  base = pkgs.stowage.buildImage {
    name = "base";
    copyToRoot = [ pkgs.stowage.dockerTools.binSh pkgs.coreutils ];
    config.Env = [ "PATH=/bin" ];
  };
  archive = pkgs.runCommand "base.tar" { } "${base} > $out";
in
# In few layers: Docker loads all of them, and takes 0.1 s for each layer.
lib.genAttrs [ "web" "python" "postgresql" "names" ] (name: (packages name).default.override { maxLayers = 10; })
// lib.optionalAttrs (packages "platforms" != { }) { platforms = (packages "platforms").default; }
  // {
  base-image = (packages "base-image").default.override { fromImage = archive; };
  # As `nix-shell --run` would; with nixpkgs' setup in small, which this set has none of.
  nix-shell = (packages "nix-shell").default.override (old: {
    run = "hello --greeting=\"$GREETING\"";
    drv = old.drv.overrideAttrs {
      stdenv = pkgs.writeTextDir "setup" "for input in $nativeBuildInputs; do PATH=$input/bin\${PATH:+:$PATH}; done";
    };
  });
  inherit (packages "monorepo") front back;
}
