{ pkgs, dockerTools }:

# Images that users of dockerTools build: nixpkgs' examples and the images of its tests, in other words.
# tests/e2e/docker_tools.rs says what each has to do.
let
  inherit (pkgs) bash bashInteractive buildEnv coreutils hello lib nix python3 writeText writeTextDir;
  inherit (dockerTools) buildImage buildLayeredImage streamLayeredImage;

  programs = paths: buildEnv { name = "root"; inherit paths; pathsToLink = [ "/bin" ]; };
  greeting = { Cmd = [ "${hello}/bin/hello" ]; };

  layersOrder = lib.genAttrs [ "layer1" "layer2" "layer3" ] (name: buildImage {
    name = "examples/${name}";
    tag = "latest";
    fromImage = { layer1 = null; layer2 = layersOrder.layer1; layer3 = layersOrder.layer2; }.${name};
    copyToRoot = lib.optional (name == "layer1") (programs [ bash coreutils ]);
    extraCommands = ''
      mkdir -p tmp
      echo ${name} > tmp/${name}
      echo ${name} > tmp/last
    '';
  });

  shellAttributes = {
    name = "tools-shell";
    nativeBuildInputs = [ hello ];
    # As nixpkgs' has it, in small: the functions of a build and PATH.
    stdenv = writeTextDir "setup" ''
      for input in $nativeBuildInputs; do PATH=$input/bin''${PATH:+:$PATH}; done
      runHook() { eval "''${!1}"; }
    '';
    greeting = "good morning";
    long = "a long text";
    passAsFile = [ "long" ];
    shellHook = "echo this is the hook";
    dontUnpack = true;
    installPhase = "hello > $out";
  };

  twice = arguments: buildImage (arguments // {
    name = "examples/${arguments.name}";
    tag = "latest";
    extraCommands = "mkdir -p same; echo the same > same/file";
  });

  nonRootShadow = { user, uid }: [
    (writeTextDir "etc/passwd" ''
      root:x:0:0::/root:${bash}/bin/bash
      ${user}:x:${toString uid}:${toString uid}::/home/${user}:${bash}/bin/bash
    '')
    (writeTextDir "etc/group" "root:x:0:\n${user}:x:${toString uid}:\n")
  ];

  declarations = {
    accounts.users.app = { uid = 1000; groups = [ "data" ]; };
    accounts.groups.data.gid = 5000;
    user = "app:data";
    directories."/srv/data" = { user = "app"; mode = "0750"; };
    files."/etc/app.conf" = { text = "setting = 1\n"; user = "app"; mode = "0600"; };
    tmp = true;
  };
in
rec {
  # 1. A program and nothing else.
  bashImage = buildImage {
    name = "examples/bash";
    tag = "latest";
    copyToRoot = programs [ bashInteractive coreutils ];
  };

  # Without a store path.
  plain = buildImage {
    name = "examples/plain";
    tag = "latest";
    extraCommands = ''
      mkdir bin
      cp ${pkgs.busybox}/bin/busybox bin/busybox
      ln -s busybox bin/sh
    '';
    config.Env = [ "PATH=/bin" ];
  };

  # 2. A command that runs as root while the image is made, and a configuration.
  asRoot = buildImage {
    name = "examples/as-root";
    tag = "v1";
    copyToRoot = programs [ bash coreutils ];
    runAsRoot = ''
      #!${pkgs.runtimeShell}
      ${dockerTools.shadowSetup}
      groupadd --system -g 900 service
      useradd --system --uid 901 -g service -d /data service
      mkdir -p /data /empty
      echo kept > /data/file
      chown -R service:service /data
      chmod 4750 /data/file
      test -d /nix/store
      id -u > /data/uid
    '';
    extraCommands = "test -f data/file; echo extra > extra";
    config = { Cmd = [ "${coreutils}/bin/stat" "-c" "%n %a %u:%g" "/data" "/data/file" "/empty" ]; WorkingDir = "/data"; };
  };

  # 3. An image on a base: files that runAsRoot changes, removes and leaves alone.
  asRootOnBase = buildImage {
    name = "examples/as-root-on-base";
    tag = "v1";
    fromImage = asRoot;
    runAsRoot = ''
      rm -r /empty
      rm /extra
      echo changed > /data/uid
      chown 5:6 /data/uid
    '';
    config.Cmd = [ "${coreutils}/bin/stat" "-c" "%n %a %u:%g" "/data" "/data/file" "/data/uid" ];
  };

  # 4. nixpkgs' `redis` and `nginx` shape: layers on demand.
  layered = streamLayeredImage {
    name = "examples/layered";
    tag = "latest";
    contents = [ hello bash coreutils ];
    extraCommands = "echo '(extraCommands)' > extraCommands";
    config = greeting // { Env = [ "PATH=/bin" "FROM_CHILD=true" "LAST=child" ]; };
  };

  layeredOnTop = streamLayeredImage {
    name = "examples/layered-on-top";
    tag = "latest";
    fromImage = layeredArchive;
    config = { Cmd = [ "${pkgs.gnugrep}/bin/grep" "--version" ]; Env = [ "LAST=parent" "OWN=1" ]; };
  };

  layeredArchive = buildLayeredImage {
    name = "examples/layered";
    tag = "archive";
    contents = [ hello bash coreutils ];
    config = greeting // { Env = [ "PATH=/bin" "FROM_CHILD=true" "LAST=child" ]; };
  };

  # A command as a string, and what `lib.optional` leaves among the contents.
  loose = streamLayeredImage {
    name = "examples/loose";
    tag = "latest";
    contents = [ [ hello null ] null [ ] ];
    config.Entrypoint = "/bin/hello";
  };

  # 5. Compressors.
  bashUncompressed = bashImage.override { name = "examples/uncompressed"; compressor = "none"; };
  bashZstd = bashImage.override { name = "examples/zstd"; compressor = "zstd"; };
  layeredUncompressed = layeredArchive.override { tag = "none"; compressor = "none"; };

  # 6. Order of layers.
  inherit (layersOrder) layer3;

  unpackOrder = buildImage {
    name = "examples/unpack-order";
    tag = "latest";
    fromImage = layersOrder.layer3;
    runAsRoot = "cat /tmp/layer? /tmp/last > /order";
    config.Cmd = [ "${coreutils}/bin/cat" "/order" ];
  };

  # A layer twice.
  repeated = streamLayeredImage {
    name = "examples/repeated";
    tag = "latest";
    fromImage = twice { name = "twice"; fromImage = twice { name = "once"; }; };
    contents = [ coreutils ];
    config.Cmd = [ "/bin/cat" "/same/file" ];
  };

  # 7. Owners.
  withUser = streamLayeredImage {
    name = "examples/user";
    tag = "latest";
    contents = [ bash coreutils ];
    uid = 999;
    gid = 998;
    uname = "somebody";
    gname = "some";
    mtime = "1980-01-01T00:00:00Z";
    config.Cmd = [ "${coreutils}/bin/stat" "-c" "%n %u:%g %Y" "/nix" "/nix/store" "${bash}/bin/bash" ];
  };

  # 8. Commands of a fake root, in the directory and with it as `/`.
  fakeRoot = streamLayeredImage {
    name = "examples/fake-root";
    tag = "latest";
    contents = [ bash coreutils ];
    fakeRootCommands = ''
      mkdir -p ./home/alice
      chown 1000:100 ./home/alice
      chmod 0700 ./home/alice
      ln -s ${pkgs.hello} ./hello
    '';
    config.Cmd = [ "/bin/bash" "-c" "/hello/bin/hello; stat -c '%n %a %u:%g' /home /home/alice" ];
  };

  # As setcap does it, for a program that may listen to port 80.
  capable = streamLayeredImage {
    name = "examples/capable";
    tag = "latest";
    contents = [ python3 ];
    fakeRootCommands = ''
      echo program > program
      ${python3}/bin/python3 -c '
      import os, struct
      os.setxattr("program", "security.capability", struct.pack("<5I", 0x2000001, 1 << 10, 0, 0, 0))
      '
    '';
    config.Cmd = [ "/bin/python3" "-c" "import os; print(os.getxattr(\"/program\", \"security.capability\").hex())" ];
  };

  fakeChroot = streamLayeredImage {
    name = "examples/fakechroot";
    tag = "latest";
    contents = [ bash coreutils ];
    fakeRootCommands = ''
      mkdir -p /home/bob
      chown 7:8 /home/bob
      /bin/stat -c %u:%g /home/bob > /said
    '';
    enableFakechroot = true;
    config.Cmd = [ "/bin/bash" "-c" "cat /said; stat -c %u:%g /home/bob; ls -d /dev /proc" ];
  };

  # 9. Without store paths.
  withoutStorePaths = streamLayeredImage {
    name = "examples/without-store";
    tag = "latest";
    contents = [ hello ];
    config = greeting;
    includeStorePaths = false;
  };

  # 10. Files that most images need.
  files = streamLayeredImage {
    name = "examples/files";
    tag = "latest";
    contents = with dockerTools; [ binSh usrBinEnv fakeNss caCertificates coreutils ];
    config.Cmd = [
      "/bin/sh"
      "-c"
      ''
        /usr/bin/env id -un
        head -c 9 /etc/ssl/certs/ca-bundle.crt /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt >/dev/null && echo certificates
        ls -d /var/empty; cat /etc/nsswitch.conf
      ''
    ];
  };

  # 11. Nix in the image.
  nixImage = dockerTools.buildImageWithNixDb {
    name = "examples/nix";
    tag = "latest";
    copyToRoot = programs [ nix bashInteractive coreutils ];
    config.Env = [ "USER=nobody" "PATH=/bin" ];
  };
  nixLayered = dockerTools.buildLayeredImageWithNixDb {
    name = "examples/nix-layered";
    tag = "latest";
    contents = [ nix bashInteractive coreutils hello ];
    maxLayers = 12;
    config.Env = [ "USER=nobody" "PATH=/bin" ];
  };

  # 12. Dates.
  now = streamLayeredImage { name = "examples/now"; tag = "latest"; contents = [ hello ]; created = "now"; mtime = "now"; };

  # 13. Names with a registry; no tag; other machines.
  prefixed = buildImage { name = "registry-1.example.org/Image"; tag = "latest"; config = greeting; };
  noTag = streamLayeredImage { name = "examples/no-tag"; config = greeting; };
  crossed = streamLayeredImage { name = "examples/arm"; tag = "latest"; architecture = "arm64"; config.Cmd = [ "/x" ]; };

  # 14. A limit that the base has nearly used up.
  bulk = streamLayeredImage {
    name = "examples/bulk";
    tag = "latest";
    contents = [ bash coreutils hello ];
    maxLayers = 2;
  };
  layeredBulk = streamLayeredImage {
    name = "examples/layered-bulk";
    tag = "latest";
    fromImage = bulkArchive;
    contents = [ pkgs.git ];
    maxLayers = 4;
    config.Cmd = [ "/bin/git" "--version" ];
  };
  bulkArchive = buildLayeredImage { name = "examples/bulk"; tag = "archive"; contents = [ bash coreutils hello ]; maxLayers = 2; };

  # 15. A store path that is a link, a bare file, a user who isn't root.
  storeLink = streamLayeredImage {
    name = "examples/store-link";
    tag = "latest";
    contents = [ bash coreutils ];
    config.Cmd = [
      "/bin/bash"
      "-c"
      "readlink ${pkgs.runCommandLocal "link" { } "ln -s ${writeText "target" "text"} $out"}"
    ];
  };
  nonRoot = streamLayeredImage {
    name = "examples/non-root";
    tag = "latest";
    contents = [ coreutils ] ++ nonRootShadow { user = "user"; uid = 999; };
    config = { Cmd = [ "/bin/id" "-un" ]; User = "user"; };
  };

  barePath = streamLayeredImage {
    name = "examples/bare-path";
    tag = "latest";
    contents = [ bash coreutils ./. ];
    config.Cmd = [ "/bin/head" "-n1" "/root-tar.sh" ];
  };
  barePathPlain = buildImage {
    name = "examples/bare-path-plain";
    tag = "latest";
    copyToRoot = [ coreutils ./. ];
    config.Cmd = [ "/bin/head" "-n1" "/root-tar.sh" ];
  };
  etc = streamLayeredImage {
    name = "examples/etc";
    tag = "latest";
    contents = [ coreutils (pkgs.linkFarm "etc" [{ name = "etc/conf.d/setting"; path = writeText "setting" "on\n"; }]) ];
    config.Cmd = [ "/bin/cat" "/etc/conf.d/setting" ];
  };

  # 16. Steps of a pipeline.
  pipeline = streamLayeredImage {
    name = "examples/pipeline";
    tag = "latest";
    contents = [ bash hello ];
    layeringPipeline = [ [ "split_paths" [ bash ] ] [ "over" "rest" [ "pipe" [ [ "popularity_contest" ] [ "limit_layers" 2 ] ] ] ] [ "flatten" ] ];
  };

  # 17. The environment of a derivation.
  shell = dockerTools.streamNixShellImage {
    tag = "latest";
    drv = shellDerivation;
    run = ''
      echo "$greeting from $name in $PWD as $(id -u), $(cat "$longPath")"
      case "$out" in /nix/store/*-tools-shell) echo out;; esac
    '';
  };
  shellWithHook = dockerTools.streamNixShellImage { name = "examples/hook"; tag = "latest"; drv = shellDerivation; command = "hello"; };
  # The name of the derivation is none of an image.
  shellFromPipe = dockerTools.streamNixShellImage { tag = "latest"; drv = pkgs.stdenv.mkDerivation (shellAttributes // { name = "Tools_+-shell.+1"; }); };
  shellThatBuilds = dockerTools.streamNixShellImage {
    name = "examples/builds";
    tag = "latest";
    drv = shellDerivation;
    run = "buildDerivation && cat $out";
  };
  shellArchive = dockerTools.buildNixShellImage { name = "examples/shell-archive"; tag = "latest"; drv = shellDerivation; run = "echo archived"; };
  # Of structured attributes, as seven of twenty common packages of nixpkgs 26.11 have them.
  structuredShell = dockerTools.streamNixShellImage {
    name = "examples/structured-shell";
    tag = "latest";
    drv = pkgs.stdenv.mkDerivation {
      name = "structured";
      __structuredAttrs = true;
      nativeBuildInputs = [ hello ];
      stdenv = writeTextDir "setup" ''
        for input in "''${nativeBuildInputs[@]}"; do PATH=$input/bin''${PATH:+:$PATH}; done
        runHook() { eval "''${!1}"; }
      '';
      words = [ "two words" "it's" ];
      table = { first = "\"quoted\""; "second key" = hello; };
      number = 7;
      yes = true;
      no = false;
      deeper.than.bash = "goes";
    };
    run = ''
      hello
      printf '<%s>' "''${words[@]}" "''${table[first]}" "$number" "$yes" "$no"
      [ -x "''${table[second key]}/bin/hello" ] && printf '<%s>' "''${outputs[out]#*-}"
      ${pkgs.gnugrep}/bin/grep -o '"deeper":{"than":{"bash":"goes"}}' "$NIX_ATTRS_JSON_FILE"
    '';
  };
  shellDerivation = pkgs.stdenv.mkDerivation shellAttributes;

  # 18. An image without its layers; several images in one archive.
  exported = dockerTools.exportImage { name = "exported.tar"; fromImage = asRootOnBase; };
  merged = dockerTools.mergeImages [ bashImage layeredArchive bashUncompressed prefixed noTagArchive ];
  noTagArchive = buildLayeredImage { name = "examples/no-tag-archive"; config = greeting; };

  # 19. Declared accounts and files: on links to a package's accounts, on those that commands make, with a database.
  declared = streamLayeredImage ({
    name = "examples/declared";
    tag = "latest";
    contents = [ bash coreutils dockerTools.fakeNss ];
    config.Cmd = [ "/bin/bash" "-c" "id; touch ~/f /srv/data/f /tmp/f; cat /etc/app.conf; stat -c '%a %u:%g' /srv/data" ];
  } // declarations);
  declaredOnCommands = buildLayeredImage ({
    name = "examples/declared-on-commands";
    tag = "latest";
    contents = [ bash coreutils ];
    fakeRootCommands = ''
      mkdir -p etc srv/data
      echo 'early:x:7:7::/:/x' > etc/passwd
      echo 'early:x:7:' > etc/group
      chown 7:7 srv/data
    '';
    maxLayers = 5;
    config.Cmd = [ "/bin/bash" "-c" "id; id early; touch ~/f; stat -c '%a %u:%g' /srv/data; cat /etc/app.conf" ];
  } // declarations // { directories."/srv/data".mode = "0711"; });
  declaredOnShadow = buildImage ({
    name = "examples/declared-on-shadow";
    tag = "latest";
    copyToRoot = programs [ bash coreutils ];
    runAsRoot = ''
      ${dockerTools.shadowSetup}
      useradd --system --uid 901 service
    '';
    config.Cmd = [ "/bin/bash" "-c" "id; id service; cat /etc/app.conf" ];
  } // declarations);
  declaredNix = dockerTools.buildLayeredImageWithNixDb ({
    name = "examples/declared-nix";
    tag = "latest";
    contents = [ nix bashInteractive coreutils ];
    maxLayers = 12;
    config = {
      Env = [ "USER=nobody" "PATH=/bin" ];
      Cmd = [ "bash" "-c" "nix-store --verify --check-contents && nix-store -qR $(readlink /opt/hello)" ];
    };
  } // removeAttrs declarations [ "user" ] // { links."/opt/hello" = "${hello}"; });
}
