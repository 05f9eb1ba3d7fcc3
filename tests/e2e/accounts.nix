# Images with declared accounts, directories, files and links.
{ pkgs }:
let
  inherit (pkgs) stowage;
  tools = pkgs.buildEnv { name = "tools"; paths = [ pkgs.bash pkgs.coreutils pkgs.gnugrep pkgs.cacert ]; };
  bash = "${pkgs.bash}/bin/bash";

  # A base of others, with accounts, one of them with an ID and a home that others like to have.
  node = pkgs.runCommand "node.tar" { nativeBuildInputs = [ pkgs.gnutar pkgs.jq ]; } ''
    mkdir -p root/etc home/node shadow
    printf '%s\n' 'root:x:0:0:root:/root:/bin/bash' 'node:x:1000:1000::/home/node:/bin/sh' > root/etc/passwd
    printf '%s\n' 'root:x:0:' 'shadow:x:42:' 'wheel:x:10:node' 'node:x:1000:' > root/etc/group
    printf '%s\n' 'root:*:19000:0:99999:7:::' 'node:!:19000::::::' > shadow/shadow
    printf '%s\n' 'passwd: sss' 'group: files' > root/etc/nsswitch.conf
    pack() { tar --append --file=layer.tar --sort=name --mtime=@1 --numeric-owner "$@"; }
    pack --directory=root --owner=0 --group=0 etc
    pack --owner=1000 --group=1000 --mode=0750 home/node
    pack --owner=0 --group=42 --mode=0640 --transform='s#^shadow/#etc/#' shadow/shadow
    jq --null-input --arg id "sha256:$(sha256sum < layer.tar | cut -d ' ' -f 1)" '{
      architecture: "amd64", os: "linux", config: { User: "node" },
      rootfs: { type: "layers", diff_ids: [$id] }
    }' > config.json
    echo '[{"Config":"config.json","RepoTags":["node:v1"],"Layers":["layer.tar"]}]' > manifest.json
    tar --create --file=$out --sort=name --mtime=@1 --owner=0 --group=0 config.json layer.tar manifest.json
  '';

  # A base whose /etc is a link, as on systems with a writable part of their own.
  linkedEtc = pkgs.runCommand "linked-etc.tar" { nativeBuildInputs = [ pkgs.gnutar pkgs.jq ]; } ''
    mkdir -p root/data/etc
    ln -s data/etc root/etc
    echo 'root:x:0:0::/root:/bin/sh' > root/data/etc/passwd
    printf '%s\n' 'root:x:0:' 'wheel:x:10:' > root/data/etc/group
    tar --create --file=layer.tar --sort=name --mtime=@1 --numeric-owner --owner=0 --group=0 --directory=root data etc
    jq --null-input --arg id "sha256:$(sha256sum < layer.tar | cut -d ' ' -f 1)" '{
      architecture: "amd64", os: "linux", config: { }, rootfs: { type: "layers", diff_ids: [$id] }
    }' > config.json
    echo '[{"Config":"config.json","RepoTags":["linked-etc:v1"],"Layers":["layer.tar"]}]' > manifest.json
    tar --create --file=$out --sort=name --mtime=@1 --owner=0 --group=0 config.json layer.tar manifest.json
  '';
  # A base whose groups are elsewhere.
  noGroups = pkgs.runCommand "no-groups.tar" { nativeBuildInputs = [ pkgs.gnutar pkgs.jq ]; } ''
    mkdir -p root/etc
    ln -s /nowhere root/etc/group
    tar --create --file=layer.tar --sort=name --mtime=@1 --numeric-owner --owner=0 --group=0 --directory=root etc
    jq --null-input --arg id "sha256:$(sha256sum < layer.tar | cut -d ' ' -f 1)" '{
      architecture: "amd64", os: "linux", config: { }, rootfs: { type: "layers", diff_ids: [$id] }
    }' > config.json
    echo '[{"Config":"config.json","RepoTags":["no-groups:v1"],"Layers":["layer.tar"]}]' > manifest.json
    tar --create --file=$out --sort=name --mtime=@1 --owner=0 --group=0 config.json layer.tar manifest.json
  '';
in
rec {
  # Declares nothing for which the base's groups have to be read.
  onNoGroups = stowage.buildImage {
    name = "accounts/on-no-groups";
    tag = "v1";
    fromImage = noGroups;
    directories."/srv/app".mode = "0711";
    files."/etc/app.conf".text = "setting = 1\n";
    copyToRoot = tools;
  };

  inherit node;

  onLinkedEtc = stowage.buildImage {
    name = "accounts/on-linked-etc";
    tag = "v1";
    fromImage = linkedEtc;
    copyToRoot = [ tools (pkgs.writeTextDir "etc/own" "own") ];
    accounts.users.app = { uid = 1000; groups = [ "wheel" ]; };
    user = "app";
    files."/etc/app.conf".text = "setting = 1\n";
    config.Cmd = [ bash ];
  };

  # With a Nix database, which also has what only declared files refer to.
  withNix = stowage.buildImage {
    name = "accounts/with-nix";
    tag = "v1";
    maxLayers = 8;
    copyToRoot = pkgs.buildEnv { name = "tools"; paths = [ pkgs.bash pkgs.coreutils pkgs.nix ]; };
    accounts.users.app.uid = 1000;
    user = "app";
    initializeNixDatabase = true;
    nixUid = 1000;
    nixGid = 1000;
    links."/opt/hello" = "${pkgs.hello}";
    tmp = true;
    config = { Cmd = [ bash ]; Env = [ "USER=app" ]; };
  };

  # On it: the same user's Nix knows both, though nothing here says whose it is.
  onNix = stowage.buildImage {
    name = "accounts/on-nix";
    tag = "v1";
    fromImage = withNix;
    initializeNixDatabase = true;
    links."/opt/jq" = "${pkgs.jq}";
  };

  # Nothing below.
  alone = stowage.buildImage {
    name = "accounts/alone";
    tag = "v1";
    accounts = {
      users.app = { uid = 1000; shell = bash; description = "An application"; };
      users.helper = { uid = 1001; gid = 1000; home = "/var/empty"; groups = [ "data" ]; };
      # As Debian has it: a directory of all.
      users.bin = { uid = 2; home = "/bin"; };
      groups.data.gid = 5000;
    };
    user = "app";
    tmp = true;
    directories."/var/lib/app/cache" = { user = "app"; mode = "0750"; };
    directories."/srv/" = { group = "data"; mode = "2770"; };
    files."/etc/app/app.conf" = { text = "setting = 1\n"; user = "app"; mode = "0600"; };
    files."/usr/local/bin/run" = { source = pkgs.writeShellScript "run" "echo ran"; };
    links."/opt/bash" = bash;
    copyToRoot = tools;
    config.Cmd = [ bash ];
  };

  # On a base of others, and with accounts in `layers` and copyToRoot.
  onNode = stowage.buildImage {
    name = "accounts/on-node";
    tag = "v1";
    fromImage = node;
    layers = [ (stowage.buildLayer { copyToRoot = pkgs.writeTextDir "etc/group" "build:x:300:\n"; }) ];
    copyToRoot = [ tools (pkgs.writeTextDir "etc/passwd" "daemon:x:1:10::/:/x\n") ];
    accounts.users.app = { uid = 1001; groups = [ "wheel" "build" ]; };
    user = "app";
    directories."/home/node".group = "app";
    config.Cmd = [ bash ];
  };
  # On one of ours.
  onAlone = stowage.buildImage {
    name = "accounts/on-alone";
    tag = "v1";
    fromImage = alone;
    accounts.users.second = { uid = 2000; gid = 1000; };
    user = "second:data";
    config.Cmd = [ bash ];
  };
  # A user of the base, by name.
  asNode = stowage.buildImage { name = "accounts/as-node"; tag = "v1"; fromImage = node; user = "node"; copyToRoot = tools; };
}
