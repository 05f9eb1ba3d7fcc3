# The Debian packages by the names that nixpkgs has for them, wrapped where a program looks
# for its files in /usr.
{ lib, boot, pkgs }:
let
  inherit (pkgs) debs runCommand;

  # A package with another name for people.
  named = pname: package: package // { inherit pname; meta = package.meta // { mainProgram = pname; }; };
  program = mainProgram: package: package // { meta = package.meta // { inherit mainProgram; }; };

  # A package of links to another's files, some of its programs behind a wrapper that sets
  # variables. `programs`: names, and the files in bin/ that they stand for.
  wrapped = { package, programs, variables, pname ? package.pname }: runCommand "${pname}-${package.version}"
    {
      nativeBuildInputs = [ pkgs.makeWrapper pkgs.bash ];
      passthru = { inherit pname; inherit (package) version; unwrapped = package; };
      meta.mainProgram = lib.head (lib.attrNames programs);
    } ''
    mkdir -p $out/bin
    for entry in ${package}/*; do
      case ''${entry##*/} in bin | nix-support) ;; *) ln -s $entry $out/ ;; esac
    done
    ln -s ${package}/bin/* $out/bin/
    ${lib.concatStrings (lib.mapAttrsToList (name: file: ''
      rm -f $out/bin/${name}
      makeWrapper ${package}/bin/${file} $out/bin/${name} \
        ${toString (lib.mapAttrsToList (key: value: "--set-default ${key} ${value}") variables)}
    '') programs)}
  '';

  version = package: lib.removeSuffix "-minimal" (lib.head (lib.filter (name: lib.match package name != null) (lib.attrNames debs)));
  python = version "python3\\.[0-9]+-minimal";
  perlVersion = lib.removePrefix "perl-modules-" (version "perl-modules-.*");
in
rec {
  inherit (boot) busybox;
  bash = program "bash" debs.bash;
  bashInteractive = bash;
  bashNonInteractive = bash;
  runtimeShell = "${bash}/bin/bash";
  coreutils = debs.coreutils;
  coreutils-full = coreutils;
  git = wrapped {
    package = debs.git;
    programs.git = "git";
    variables = { GIT_EXEC_PATH = "${debs.git}/lib/git-core"; GIT_TEMPLATE_DIR = "${debs.git}/share/git-core/templates"; };
  };
  gitMinimal = git;
  python3 = wrapped {
    package = debs."${python}-minimal";
    pname = "python3";
    programs.python3 = python;
    variables.PYTHONHOME = pythonHome;
  };
  python3Minimal = python3;
  # Debian has the standard library in two packages.
  pythonHome = pkgs.symlinkJoin {
    name = "python3-home";
    paths = [ debs."lib${python}-stdlib" debs."lib${python}-minimal" ];
  };
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
  };
  inherit (debs) bzip2 curl diffutils file findutils gawk gzip hello jq less openssl procps rsync skopeo tree util-linux wget zstd;
  sqlite = program "sqlite3" debs.sqlite3;
  gnugrep = program "grep" debs.grep;
  gnused = program "sed" debs.sed;
  gnutar = program "tar" debs.tar;
  xz = program "xz" debs.xz-utils;
  which = program "which" debs.debianutils;
  man = program "man" debs.man-db;
  # Debian keeps the programs of each version apart.
  postgresql = runCommand "postgresql-${debs.postgresql-15.version}" { meta.mainProgram = "postgres"; } ''
    mkdir $out
    ln -s ${debs.postgresql-15}/lib/postgresql/*/bin $out/bin
  '';
  nginx = program "nginx" debs.nginx;
  redis = program "redis-server" debs.redis-server;
  openssh = program "ssh" debs.openssh-client;
  nix = program "nix" debs.nix-bin;
  shadow = program "passwd" debs.passwd;
  libxml2 = program "xmllint" debs.libxml2-utils;
  iana-etc = named "iana-etc" debs.netbase;
  glibc = named "glibc" debs.libc6;
  cacert = runCommand "nss-cacert" { } ''
    mkdir -p $out/etc/ssl/certs
    find ${debs.ca-certificates}/share/ca-certificates -name '*.crt' | sort | xargs cat > $out/etc/ssl/certs/ca-bundle.crt
    ln -s ca-bundle.crt $out/etc/ssl/certs/ca-certificates.crt
  '';
  rustPlatform.buildRustPackage = { pname, version, meta ? { }, passthru ? { }, ... }: runCommand "${pname}-${version}"
    {
      inherit meta;
      passthru = { inherit pname version; } // passthru;
    } ''
    mkdir -p $out/bin
    cp ${boot.stowageProgram} $out/bin/${pname}
  '';
}
