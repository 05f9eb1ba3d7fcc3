# What is there before there is a shell.
{ lib, system }:
let
  programs = lib.importJSON ./programs.json;

  # As nixpkgs' `requireFile`: a path that the store has already, named by its hash. The
  # builder only runs if it was removed.
  fixed = { name, sha256, recursive ? false }: derivation {
    inherit name system;
    builder = "/missing/${name}/run-checks-pkgs-collect-again";
    outputHashMode = if recursive then "recursive" else "flat";
    outputHashAlgo = "sha256";
    outputHash = sha256;
  };
  program = { name, sha256, ... }: fixed { inherit name sha256; recursive = true; };

  # Static: runs in a sandbox that has nothing else, not even /bin/sh.
  busyboxProgram = "${program programs.boot}/bin/busybox";
in
rec {
  inherit busyboxProgram;
  stowageProgram = "${program programs.stowage}/bin/stowage";
  # mdBook, if there is one: a directory with its loader and libraries.
  mdbookDirectory = if programs ? mdbook then program programs.mdbook else null;
  deb = { file, sha256, ... }: fixed { name = file; inherit sha256; };

  # A derivation of a busybox script alone.
  run = name: attributes: script: derivation ({
    inherit system;
    name = lib.replaceStrings [ ":" "~" "%" ] [ "-" "-" "-" ] name;
    builder = busyboxProgram;
    args = [ "sh" "-ec" script ];
  } // attributes);

  # Debian's busybox has `ar`, but no `tar` that knows xz: one after the other.
  unpack = package: run "${package.file}-unpacked" { src = deb package; } ''
    set -o pipefail
    mkdir $out
    ar p "$src" data.tar.xz | xz -dc | tar -x -C $out
  '';

  busybox = run "busybox-1.35" { } ''
    mkdir -p $out/bin
    cp ${busyboxProgram} $out/bin/busybox
    for applet in $($out/bin/busybox --list); do
      [ $applet = busybox ] || ln -s busybox $out/bin/$applet
    done
  '';

  # The shell of every build: static too, so that images get no libc from it unasked.
  bash = run "bash-static" { src = unpack (lib.importJSON ./debs.json).bash-static; } ''
    mkdir -p $out/bin
    cp $(find $src -name bash-static -type f -perm -100) $out/bin/bash
    ln -s bash $out/bin/sh
  '';
}
