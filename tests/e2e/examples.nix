# The flakes of examples/, with these packages in place of their inputs.
{ pkgs }:
let
  inherit (pkgs) lib;
  system = pkgs.stdenv.hostPlatform.system;
  # No other platform's programs are there: what its images are called by, and what they are for, is.
  forArm = pkgs // { stowage = pkgs.stowage // { buildImage = arguments: pkgs.stowage.buildImage (arguments // { arch = "arm64"; }); }; };
  packagesBy = others: name: ((import (../../examples + "/${name}/flake.nix")).outputs {
    nixpkgs = { inherit lib; };
    stowage.legacyPackages.${system} = pkgs // { pkgsCross.aarch64-multiplatform = forArm; } // others;
  }).packages.${system} or { };
  packages = packagesBy { };
  # The packages of an example in which a line of its own files is another one.
  changed = name: old: new:
    let
      replaced = text: assert lib.hasInfix old text; lib.replaceStrings [ old ] [ new ] text;
      with' = write: file: text: write file (replaced text);
    in
    packagesBy { writeTextDir = with' pkgs.writeTextDir; writeShellScript = with' pkgs.writeShellScript; } name;

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

  # Pairs of which one line differs.
  web-whole = (packages "web").default;
  web-changed = (changed "web" "It works" "It works well").default;
  python-whole = (packages "python").default;
  python-changed = (changed "python" "import json, platform" "import json, os, platform").default;
  postgresql-whole = (packages "postgresql").default;
  postgresql-changed = (changed "postgresql" "set -eu" "set -euo pipefail").default;
  front-changed = (changed "monorepo" "uname -s" "uname -sr").front;
}
