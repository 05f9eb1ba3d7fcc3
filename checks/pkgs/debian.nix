# A store path for each Debian package: unpacked, /usr merged into it, and every program and
# library bound to its libraries by absolute path. References are true: a package refers to
# those of its dependencies that it uses.
{ lib, boot, runCommand }:
let
  debs = lib.importJSON ./debs.json;

  triplet = "x86_64-linux-gnu";
  libc = built.libc6;

  # patchelf is itself dynamic: before anything is relocated it runs by way of the unpacked
  # libc's loader.
  unpackedClosure = package: lib.unique ([ package ] ++ lib.concatMap unpackedClosure debs.${package}.needs);
  unpackedLibraries = lib.concatMapStringsSep ":"
    (package:
      let root = boot.unpack debs.${package}; in "${root}/lib/${triplet}:${root}/usr/lib/${triplet}")
    (unpackedClosure "patchelf");
  patchelf = runCommand "patchelf-unpacked" { } ''
    mkdir -p $out/bin
    loader=$(find ${boot.unpack debs.libc6} -name ld-linux-x86-64.so.2 | head -n 1)
    cat > $out/bin/patchelf <<EOF
    #!${boot.bash}/bin/bash
    exec $loader --library-path ${unpackedLibraries} ${boot.unpack debs.patchelf}/usr/bin/patchelf "\$@"
    EOF
    chmod +x $out/bin/patchelf
    $out/bin/patchelf --version
  '';

  build = package: { version, needs, ... }@deb: runCommand "${package}-${lib.replaceStrings [ ":" "~" ] [ "-" "-" ] version}"
    {
      src = boot.unpack deb;
      needs = map (need: built.${need}) needs;
      # libc needs no relocation: its loader and libraries refer to nothing.
      nativeBuildInputs = lib.optional (package != "libc6") patchelf;
      interpreter = lib.optionalString (package != "libc6") "${libc}/lib/${triplet}/ld-linux-x86-64.so.2";
      inherit triplet;
      passthru = { pname = package; inherit version; };
      meta.mainProgram = package;
    } ". ${./relocate.sh}";

  built = lib.mapAttrs build debs;
in
built
