# What people build with nix2container, by the names of its own examples. A flake that has
# nix2container as an input takes ours in its place.
{ pkgs, nix2container }:
let
  inherit (nix2container) buildImage buildLayer;
  inherit (pkgs) bash bashInteractive buildEnv coreutils hello runCommand;

  programs = paths: buildEnv { name = "root"; inherit paths; pathsToLink = [ "/bin" ]; };
  greeting = { entrypoint = [ "${hello}/bin/hello" ]; };
  files = runCommand "files" { } ''
    mkdir -p $out/tmp
    touch $out/tmp/first $out/tmp/second
  '';
  list = directory: { entrypoint = [ "${coreutils}/bin/ls" "-ln" directory ]; };
  readline = buildLayer { deps = [ pkgs.readline ]; };
in
{
  basic = buildImage { name = "basic"; config = greeting; };

  hello = buildImage {
    name = "hello";
    config.entrypoint = [
      "${bash}/bin/bash"
      (pkgs.writeScript "conversation" ''
        ${hello}/bin/hello
        echo "and good night"
      '')
    ];
    layers = [ (buildLayer { deps = [ bash hello ]; }) ];
  };

  bash = buildImage {
    name = "bash";
    copyToRoot = [ (programs [ bashInteractive coreutils ]) ];
    config.Cmd = [ "/bin/bash" ];
  };

  copyToRoot = buildImage {
    name = "copy-to-root";
    copyToRoot = [ hello bash ];
    config.entrypoint = [ "/bin/bash" "-c" "/bin/hello" ];
  };

  created = buildImage { name = "created"; config = greeting; created = "2024-05-13T09:31:10Z"; };

  layered = buildImage { name = "layered"; config = greeting; maxLayers = 3; };

  # Two equal layers below, once each.
  duplicated = buildImage {
    name = "duplicated";
    config = greeting;
    layers = [ (buildLayer { layers = [ readline (buildLayer { deps = [ pkgs.readline ]; }) ]; }) ];
  };

  nested = buildImage {
    name = "nested";
    config.entrypoint = [ "/bin/bash" "-c" "${hello}/bin/hello" ];
    layers = [
      (buildLayer {
        deps = [ bashInteractive ];
        copyToRoot = programs [ bashInteractive ];
        layers = [ readline ];
      })
    ];
  };

  metadata = buildImage {
    name = "metadata";
    config = greeting;
    layers = [
      (buildLayer {
        deps = [ hello ];
        metadata = { created_by = "by whom"; author = "whose"; comment = "and why"; };
      })
    ];
  };

  nonReproducible =
    let noon = runCommand "noon" { } "date '+built at %N' > $out";
    in buildImage {
      name = "non-reproducible";
      config.entrypoint = [ "${coreutils}/bin/cat" "${noon}" ];
      layers = [ (buildLayer { deps = [ noon ]; reproducible = false; }) ];
    };

  openbar =
    let tmp = runCommand "tmp" { } "mkdir -p $out/tmp";
    in buildImage {
      name = "openbar";
      copyToRoot = [ tmp ];
      perms = [{ path = tmp; regex = ".*"; mode = "0777"; }];
      config = list "/";
    };

  perms = buildImage {
    name = "perms";
    copyToRoot = files;
    perms = [{ path = "${files}"; regex = ""; mode = "0777"; }];
    config = list "/tmp/";
  };

  someFiles = buildImage {
    name = "some-files";
    copyToRoot = files;
    perms = [{ path = files; regex = "first"; mode = "0777"; }];
    config = list "/tmp/";
  };

  ownership = buildImage {
    name = "ownership";
    copyToRoot = [ files ];
    perms = [{ path = files; regex = "/tmp/first"; uid = 1001; gid = 1002; }];
    config = list "/tmp/";
  };

  # In a layer of its own, and of a program in the store.
  layerPerms =
    let tool = pkgs.writeShellScriptBin "tool" "echo tool"; in
    buildImage {
      name = "layer-perms";
      layers = [
        (buildLayer {
          deps = [ tool ];
          copyToRoot = files;
          perms = [
            { path = files; regex = "/first$"; mode = "0640"; uid = 7; }
            { path = tool; regex = "/bin/tool$"; mode = "4755"; }
          ];
        })
      ];
      config.Cmd = [ "${coreutils}/bin/stat" "-c" "%a %u %n" "/tmp/first" "${tool}/bin/tool" "/tmp/second" ];
    };

  nginx =
    let
      configuration = pkgs.writeText "nginx.conf" ''
        user nobody nobody;
        daemon off;
        error_log /dev/stderr info;
        pid /dev/null;
        events { }
        http {
          access_log /dev/stderr;
          server {
            listen 8080;
            location / { root ${pkgs.writeTextDir "index.html" "served by nginx\n"}; }
          }
        }
      '';
      state = runCommand "state" { } "mkdir -p $out/var/log/nginx $out/var/lib/nginx $out/var/cache/nginx $out/tmp";
      users = runCommand "users" { } ''
        mkdir -p $out/etc
        echo nobody:x:65534:65534::/var/empty:/bin/false > $out/etc/passwd
        echo nobody:x:65534: > $out/etc/group
      '';
    in
    buildImage {
      name = "nginx";
      copyToRoot = [ users state ];
      perms = [{ path = state; regex = "/(var|tmp)"; mode = "1777"; }];
      config = {
        Cmd = [ "${pkgs.nginx}/bin/nginx" "-c" configuration ];
        ExposedPorts."8080/tcp" = { };
        Env = [ "CURL=${pkgs.curl}/bin/curl" "BASH=${bash}/bin/bash" ];
      };
    };

  # A path of the flake itself.
  python = buildImage {
    name = "python";
    config.entrypoint = [ "${pkgs.python3}/bin/python3" ./hello.py ];
    layers = [ (buildLayer { deps = [ pkgs.python3 ]; }) ];
  };

  nix = buildImage {
    name = "nix";
    maxLayers = 8;
    initializeNixDatabase = true;
    copyToRoot = [ (programs [ bash coreutils pkgs.nix ]) ];
    config.Env = [ "NIX_PAGER=cat" "USER=nobody" "HOME=/" "NIX=${pkgs.nix}" ];
    layers = [ (buildLayer { deps = [ hello ]; }) ];
  };

  nixUser =
    let
      home = runCommand "home" { } ''
        mkdir -p $out/etc/nix $out/home/user
        echo user:x:1000:1000::/home/user: > $out/etc/passwd
        echo user:x:1000: > $out/etc/group
        echo 'substituters =' > $out/etc/nix/nix.conf
      '';
    in
    buildImage {
      name = "nix-user";
      maxLayers = 8;
      initializeNixDatabase = true;
      nixUid = 1000;
      nixGid = 1000;
      copyToRoot = [ (programs [ bash coreutils pkgs.nix ]) home ];
      perms = [{ path = home; regex = "/home/user"; mode = "0744"; uid = 1000; gid = 1000; uname = "user"; gname = "user"; }];
      config = {
        Cmd = [ "/bin/bash" ];
        User = "user";
        WorkingDir = "/home/user";
        Env = [ "HOME=/home/user" "NIX_PAGER=cat" "USER=user" "PATH=/bin" "BUILDER=${bash}/bin/bash" ];
      };
    };
}
