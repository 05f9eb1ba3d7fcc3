# The Debian packages by the names that nixpkgs has for them, wrapped where a program looks
# for its files in /usr.
{ lib, boot, pkgs }:
let
  inherit (pkgs) debs runCommand;

  # A package with another name for people.
  named = pname: package: package // { inherit pname; meta = package.meta // { mainProgram = pname; }; };
  program = mainProgram: package: package // { meta = package.meta // { inherit mainProgram; }; };

  # A package of links to another's files, some of its programs behind a wrapper that sets
  # variables.
  wrapped = { package, programs, variables, pname ? package.pname }: runCommand "${pname}-${lib.removePrefix "${package.pname}-" package.name}"
    {
      nativeBuildInputs = [ pkgs.makeWrapper pkgs.bash ];
      passthru = { inherit pname; inherit (package) version; unwrapped = package; };
      meta.mainProgram = lib.head programs;
    } ''
    mkdir -p $out/bin
    ln -s ${package}/* $out/ 2>/dev/null || true
    rm -rf $out/bin $out/nix-support
    mkdir $out/bin
    ln -s ${package}/bin/* $out/bin/
    for program in ${toString programs}; do
      rm -f $out/bin/$program
      makeWrapper ${package}/bin/$program $out/bin/$program \
        ${toString (lib.mapAttrsToList (name: value: "--set-default ${name} ${value}") variables)}
    done
  '';

  pythonVersion = lib.head (lib.filter (name: lib.match "python3\\.[0-9]+" name != null) (lib.attrNames debs));
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
    programs = [ "git" ];
    variables = { GIT_EXEC_PATH = "${debs.git}/lib/git-core"; GIT_TEMPLATE_DIR = "${debs.git}/share/git-core/templates"; };
  };
  gitMinimal = git;
  python3 = wrapped {
    package = debs.${pythonVersion};
    pname = "python3";
    programs = [ pythonVersion "python3" ];
    variables.PYTHONHOME = pythonHome;
  };
  python3Minimal = python3;
  # Debian has the standard library in three packages.
  pythonHome = pkgs.symlinkJoin {
    name = "python3-home";
    paths = [ debs."lib${pythonVersion}-stdlib" debs."lib${pythonVersion}-minimal" ];
  };
  # In the sandbox one user is mapped, and a real chown fails in a way that fakeroot passes on.
  fakeroot = wrapped {
    package = debs.fakeroot;
    programs = [ "fakeroot-sysv" ];
    variables.FAKEROOTDONTTRYCHOWN = "1";
  };
  inherit (debs) bzip2 curl diffutils file findutils gawk gzip hello jq less openssl perl procps rsync skopeo tree util-linux wget zstd;
  sqlite = program "sqlite3" debs.sqlite3;
  gnugrep = program "grep" debs.grep;
  gnused = program "sed" debs.sed;
  gnutar = program "tar" debs.tar;
  xz = program "xz" debs.xz-utils;
  which = program "which" debs.debianutils;
  man = program "man" debs.man-db;
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
