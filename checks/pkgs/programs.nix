# The Debian packages by the names that nixpkgs has for them, wrapped where a program looks
# for its files in /usr.
{ lib, boot, pkgs }:
let
  inherit (pkgs) debs runCommand;

  program = mainProgram: package: package // { meta = package.meta // { inherit mainProgram; }; };

  # What Debian has in several packages.
  joined = pname: mainProgram: packages: pkgs.symlinkJoin
    {
      name = "${pname}-${(lib.head packages).version}";
      paths = packages;
      passthru = { inherit pname; inherit (lib.head packages) version; };
      meta = { inherit mainProgram; };
    };

  # A package of links to another's files, some of its programs behind a wrapper that sets
  # variables. `programs`: names, and the files in bin/ that they stand for. `path`: packages
  # whose programs these run, found behind the user's own PATH.
  wrapped = { package, programs, variables ? { }, flags ? [ ], path ? [ ], pname ? package.pname }: runCommand "${pname}-${package.version}"
    {
      nativeBuildInputs = [ pkgs.makeWrapper pkgs.bash ];
      passthru = { inherit pname; inherit (package) version; unwrapped = package; };
      meta.mainProgram = lib.head (lib.attrNames programs);
    } ''
    mkdir -p $out/bin
    for entry in ${package}/*; do
      # Directories of its own, which can be joined with others'.
      case ''${entry##*/} in bin | nix-support) ;; *) cp --recursive --symbolic-link --no-preserve=mode $entry $out/ ;; esac
    done
    ln -s ${package}/bin/* $out/bin/
    ${lib.concatStrings (lib.mapAttrsToList (name: file: ''
      rm -f $out/bin/${name}
      makeWrapper ${package}/bin/${file} $out/bin/${name} \
        ${toString (lib.mapAttrsToList (key: value: "--set-default ${key} ${value}") variables)} \
        ${lib.concatMapStringsSep " " (flag: "--add-flags ${flag}") flags} \
        ${lib.optionalString (path != [ ]) "--suffix PATH : ${lib.makeBinPath path}"}
    '') programs)}
  '';

  version = package: lib.removeSuffix "-minimal" (lib.head (lib.filter (name: lib.match package name != null) (lib.attrNames debs)));
  python = version "python3\\.[0-9]+-minimal";
  pythonLibrary = pkgs.symlinkJoin {
    name = "python3-library";
    paths = [ debs."lib${python}-stdlib" debs."lib${python}-minimal" ];
  };
  perlVersion = lib.removePrefix "perl-modules-" (version "perl-modules-.*");
in
rec {
  inherit (boot) busybox;
  bash = program "bash" debs.bash;
  bashInteractive = bash;
  bashNonInteractive = bash;
  runtimeShell = "${bash}/bin/bash";
  runtimeShellPackage = bash;
  coreutils = debs.coreutils;
  coreutils-full = coreutils;
  git = wrapped {
    package = debs.git;
    programs.git = "git";
    variables = { GIT_EXEC_PATH = "${debs.git}/lib/git-core"; GIT_TEMPLATE_DIR = "${debs.git}/share/git-core/templates"; };
    # Its scripts, and the shell that it runs `git-upload-pack` by.
    path = [ bash coreutils gnugrep gnused gawk ];
  };
  gitMinimal = git;
  # Python finds its library from where its program really is: a copy of that, and links to the
  # library, which Debian has in two packages.
  python3 = runCommand "python3-${debs."${python}-minimal".version}"
    {
      passthru = { pname = "python3"; inherit (debs."${python}-minimal") version; };
      meta.mainProgram = "python3";
    } ''
    mkdir -p $out/bin $out/lib/${python}
    cp ${debs."${python}-minimal"}/bin/${python} $out/bin
    ln -s ${python} $out/bin/python3
    ln -s ${python} $out/bin/python
    cp -rs ${pythonLibrary}/lib/${python}/. $out/lib/${python}
  '';
  python3Minimal = python3;
  perl = wrapped {
    package = debs.perl-base;
    pname = "perl";
    programs.perl = "perl";
    variables.PERL5LIB = lib.concatStringsSep ":" [
      "${debs.perl-base}/lib/x86_64-linux-gnu/perl-base"
      "${debs."perl-modules-${perlVersion}"}/share/perl/${perlVersion}"
      "${debs."libperl${perlVersion}"}/lib/x86_64-linux-gnu/perl/${perlVersion}"
    ];
  };
  # In the sandbox one user is mapped, and a real chown fails in a way that fakeroot passes on.
  fakeroot = wrapped {
    package = debs.fakeroot;
    programs.fakeroot = "fakeroot-sysv";
    variables.FAKEROOTDONTTRYCHOWN = "1";
    # It would look in /usr.
    flags = [ "--lib" "${debs.libfakeroot}/lib/x86_64-linux-gnu/libfakeroot/libfakeroot-sysv.so" "--faked" "${debs.fakeroot}/bin/faked-sysv" ];
    path = [ util-linux coreutils gnused ];
  };
  inherit (debs) bzip2 curl diffutils findutils gawk gzip hello jq less openssl patchelf pigz procps rsync skopeo tree tzdata wget zstd;
  file = wrapped {
    package = debs.file;
    programs.file = "file";
    variables.MAGIC = "${debs.libmagic-mgc}/lib/file/magic.mgc";
  };
  sqlite = program "sqlite3" debs.sqlite3;
  gnugrep = program "grep" debs.grep;
  gnused = program "sed" debs.sed;
  gnumake = program "make" debs.make;
  gnupatch = program "patch" debs.patch;
  gnutar = program "tar" debs.tar;
  xz = program "xz" debs.xz-utils;
  which = program "which" debs.debianutils;
  man-db = program "man" debs.man-db;
  man = man-db;
  bubblewrap = program "bwrap" debs.bubblewrap;
  # Debian keeps the programs of each version apart.
  postgresql = runCommand "postgresql-${debs.postgresql-15.version}" { meta.mainProgram = "postgres"; } ''
    mkdir -p $out/bin
    ln -s ${debs.postgresql-15}/lib/postgresql/*/bin/* ${debs.postgresql-client-15}/lib/postgresql/*/bin/* $out/bin
  '';
  nginx = program "nginx" debs.nginx;
  redis = joined "redis" "redis-server" [ debs.redis-server debs.redis-tools ];
  openssh = program "ssh" debs.openssh-client;
  nix = wrapped {
    package = debs.nix-bin;
    pname = "nix";
    programs = lib.genAttrs
      [ "nix" "nix-build" "nix-channel" "nix-collect-garbage" "nix-env" "nix-hash" "nix-instantiate" "nix-shell" "nix-store" ]
      lib.id;
    # Where its build hook is.
    variables.NIX_LIBEXEC_DIR = "${debs.nix-bin}/libexec";
  };
  util-linux = joined "util-linux" "unshare" [ debs.util-linux debs.mount ];
  shadow = joined "shadow" "passwd" [ debs.passwd debs.login ];
  libxml2 = program "xmllint" debs.libxml2-utils;
  iana-etc = debs.netbase;
  glibc = debs.libc6;
  readline = debs.libreadline8;
  cacert = runCommand "nss-cacert-${debs.ca-certificates.version}" { passthru = { pname = "nss-cacert"; inherit (debs.ca-certificates) version; }; } ''
    mkdir -p $out/etc/ssl/certs
    find ${debs.ca-certificates}/share/ca-certificates -name '*.crt' | sort | xargs cat > $out/etc/ssl/certs/ca-bundle.crt
    ln -s ca-bundle.crt $out/etc/ssl/certs/ca-certificates.crt
  '';
  rustPlatform.buildRustPackage = { pname, version, meta ? { }, passthru ? { }, postInstall ? "", ... }: runCommand "${pname}-${version}"
    {
      inherit meta;
      passthru = { inherit pname version; } // passthru;
    } ''
    mkdir -p $out/bin
    cp ${boot.stowageProgram} $out/bin/${meta.mainProgram or pname}
    ${postInstall}
  '';
} // lib.optionalAttrs (boot.mdbookDirectory != null) {
  mdbook = pkgs.writeShellScriptBin "mdbook" ''
    exec ${boot.mdbookDirectory}/ld-linux-x86-64.so.2 --library-path ${boot.mdbookDirectory} ${boot.mdbookDirectory}/mdbook "$@"
  '';
}
