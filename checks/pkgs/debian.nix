# A store path for each Debian package: unpacked, /usr merged into it, and every program and
# library bound to its libraries by absolute path. References are true: a package refers to
# those of its dependencies that it uses.
#
# `salt` changes nothing but the hash of libc's store path, and so of all that refer to it.
{ lib, boot, runCommand, salt ? "" }:
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

  # Where nixpkgs has another name: what people read in a layer's list is theirs.
  names = {
    debianutils = "which";
    grep = "gnugrep";
    libc6 = "glibc";
    netbase = "iana-etc";
    nix-bin = "nix";
    openssh-client = "openssh";
    perl-base = "perl";
    sed = "gnused";
    sqlite3 = "sqlite";
    tar = "gnutar";
    xz-utils = "xz";
  };

  # What a package's own scripts would do at its installation, or a path that is compiled in.
  fixups = {
    bash = "ln -s bash $out/bin/sh";
    debianutils = "ln -s which.debianutils $out/bin/which";
    gawk = "ln -s gawk $out/bin/awk";
    # libc loads the unwinder when a thread ends early, and looks for it next to itself.
    libc6 = "cp $(find ${boot.unpack debs.libgcc-s1} -name 'libgcc_s.so.1') $out/lib/${triplet}/";
    # git runs commands by /bin/sh, which an image need not have. A name without a slash it
    # looks for on PATH instead, and the string has room for that.
    git = ''
      for program in $out/bin/git $out/lib/git-core/git; do
        offset=$(strings -t d "$program" | awk '$2 == "/bin/sh" { print $1 }')
        [ "$(echo "$offset" | wc -w)" = 1 ]
        printf 'sh\0\0\0\0\0' | dd of="$program" bs=1 seek="$offset" conv=notrunc status=none
      done
    '';
  };

  # 1:2.39.5-0+deb12u3 is 2.39.5: without Debian's epoch and revision.
  upstream = version: lib.last (lib.match "([0-9]+:)?([^-+~:]+).*" version);

  build = package: { needs, ... }@deb:
    let
      pname = names.${package} or package;
      version = upstream deb.version;
    in
    runCommand "${pname}-${version}"
      ({
        src = boot.unpack deb;
        needs = map (need: built.${need}) needs;
        # libc needs no relocation: its loader and libraries refer to nothing.
        nativeBuildInputs = lib.optional (package != "libc6") patchelf;
        interpreter = lib.optionalString (package != "libc6") "${libc}/lib/${triplet}/ld-linux-x86-64.so.2";
        inherit triplet;
        fixup = fixups.${package} or "";
        passthru = { inherit pname version; };
        meta.mainProgram = package;
      } // lib.optionalAttrs (package == "libc6" && salt != "") { inherit salt; }) ". ${./relocate.sh}";

  built = lib.mapAttrs build debs;
in
built
