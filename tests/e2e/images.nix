# Images that the end-to-end tests build, and `nix flake check` with them.
{ pkgs }:
let
  inherit (pkgs) stowage;

  # The same packages with another libc.
  rebuilt = import pkgs.path { inherit (pkgs) system; config.salt = "rebuilt"; };

  # An application of a few bytes on top of programs of many.
  app = version: pkgs.writeShellScriptBin "app" "echo app ${version}; exec ${pkgs.git}/bin/git --version";
  appImage = version: stowage.buildImage {
    name = "e2e/app";
    tag = version;
    config = {
      Cmd = [ "${app version}/bin/app" ];
      Labels.tools = toString (with pkgs; [ curl git nginx nix openssh postgresql python3 redis rsync skopeo ]);
    };
  };

  # The same in a few small layers, for tests that are not about many layers: a daemon takes 0.1 s for each.
  smallAppImage = version:
    let app = pkgs.writeShellScriptBin "app" "echo app ${version}; exec ${pkgs.curl}/bin/curl --version"; in
    stowage.buildImage {
      name = "e2e/small-app";
      tag = version;
      maxLayers = 6;
      config.Cmd = [ "${app}/bin/app" ];
    };

  # A layer of one file in /etc, on another.
  fileLayer = name: layers: stowage.buildLayer { inherit layers; copyToRoot = pkgs.writeTextDir "etc/${name}" name; };
  bashLayer = stowage.buildLayer { deps = [ pkgs.bash ]; };

  # A base such as others make: merged /usr, a /tmp for everybody, an archive compressed
  # as a whole whose layers are compressed again.
  skeleton = pkgs.runCommand "skeleton.tar" { nativeBuildInputs = [ pkgs.gnutar pkgs.gzip pkgs.jq ]; } ''
    mkdir -p root/usr/bin root/tmp
    ln -s usr/bin root/bin
    chmod 1777 root/tmp
    tar --create --file=layer.tar --directory=root --sort=name --mtime=@1 --owner=0 --group=0 bin tmp usr
    diff_id=sha256:$(sha256sum < layer.tar | cut -d ' ' -f 1)
    gzip --no-name layer.tar
    jq --null-input --arg id "$diff_id" '{
      architecture: "amd64", os: "linux", created: "2020-02-02T00:00:00Z",
      config: { Env: ["PATH=/usr/bin", "BASE=base"], Cmd: ["ignored"], WorkingDir: "/usr" },
      rootfs: { type: "layers", diff_ids: [$id] },
      history: [{ created_by: "ADD skeleton" }, { created_by: "CMD", empty_layer: true }]
    }' > config.json
    echo '[{"Config":"config.json","RepoTags":["skeleton:v1"],"Layers":["layer.tar.gz"]}]' > manifest.json
    tar --create --file=$out --sort=name --mtime=@1 --owner=0 --group=0 config.json layer.tar.gz manifest.json
  '';
  distributionImage = stowage.buildImage {
    name = "e2e/distribution";
    fromImage = skeleton;
    copyToRoot = pkgs.buildEnv { name = "root"; paths = [ pkgs.bash pkgs.coreutils ]; pathsToLink = [ "/bin" ]; };
  };
  distribution = pkgs.runCommand "distribution.tar.gz" { nativeBuildInputs = [ pkgs.gzip ]; }
    "${distributionImage} | gzip --no-name > $out";
  # A package with many facts, some of them unusual. nixpkgs' own check of `meta` would refuse them, so
  # that they are added to the finished derivation.
  described = pkgs.stdenv.mkDerivation
    {
      pname = "described";
      version = "1.2";
      buildInputs = [ pkgs.jq ];
      buildCommand = "mkdir -p $out/bin; echo 'exec ${pkgs.jq}/bin/jq' > $out/bin/described";
      passthru.src.urls = [ "mirror://gnu/described.tar.gz" "https://example.org/described.tar.gz" ];
    } // {
    meta = {
      license = [ pkgs.lib.licenses.mit { fullName = "Own Licence"; free = false; } (throw "no licence") ];
      homepage = "https://example.org/described";
      description = "Says what it is";
      identifiers.cpe = "cpe:2.3:a:example:described:1.2:*:*:*:*:*:*:*";
      maintainers = throw "nobody";
    };
  };
  # An image for SBOMs, with a package by each option that adds packages.
  listed = stowage.buildImage {
    name = "example.test/e2e/listed";
    tag = "v1";
    copyToRoot = described;
    config.Cmd = [ "${pkgs.coreutils}/bin/ls" ];
    layers = [ (stowage.buildLayer { deps = [ pkgs.hello ]; layers = [ bashLayer ]; }) ];
  };
  # A Nix that knows the image's own store paths, of all its layers.
  withNix = stowage.buildImage {
    name = "e2e/with-nix";
    maxLayers = 8;
    initializeNixDatabase = true;
    layers = [ (stowage.buildLayer { deps = [ pkgs.hello ]; layers = [ bashLayer ]; }) ];
    copyToRoot = [
      (pkgs.buildEnv { name = "root"; paths = [ pkgs.nix pkgs.bash pkgs.coreutils ]; pathsToLink = [ "/bin" ]; })
      (pkgs.writeTextDir "etc/nix/nix.conf" "build-users-group =\nsandbox = false\nsubstituters =\nexperimental-features = nix-command\n")
      (pkgs.writeTextDir "etc/passwd" "root:x:0:0::/root:/bin/sh\n")
      (pkgs.writeTextDir "example.nix" ''
        derivation {
          name = "example";
          system = builtins.currentSystem;
          builder = "${pkgs.bash}/bin/bash";
          args = [ "-c" "echo built in a container > $out" ];
        }
      '')
    ];
    config = {
      Cmd = [ "/bin/bash" ];
      Env = [ "PATH=/bin" "HOME=/root" "HELLO=${pkgs.hello}" ];
    };
  };

  # Images on it: on the image itself, and on the archive that others would pull.
  addition = pkgs.writeShellScriptBin "addition" "echo added";
  onNixWith = arguments: stowage.buildImage ({
    name = "e2e/on-nix";
    maxLayers = 8;
    initializeNixDatabase = true;
    copyToRoot = pkgs.runCommand "root" { } "mkdir -p $out/opt; ln -s ${addition}/bin/addition $out/opt/addition";
  } // arguments);
  onNix = onNixWith { fromImage = withNix; };
  onNixArchive = onNixWith { fromImage = pkgs.runCommand "with-nix.tar" { } "${withNix} > $out"; };
  onNixDockerTools = stowage.dockerTools.streamLayeredImage {
    name = "e2e/on-nix-docker-tools";
    fromImage = onNix;
    contents = [ (pkgs.writeTextDir "opt/file" "of dockerTools\n") ];
    includeNixDB = true;
  };
  withoutDatabase = onNixWith { fromImage = withNix; initializeNixDatabase = false; };

  # What Lix's own image holds, in layers as its authors group them.
  lix = stowage.buildImage {
    name = "e2e/lix";
    layers = pkgs.lib.foldl'
      (below: deps: below ++ [ (stowage.buildLayer { inherit deps; layers = below; }) ])
      [ ]
      (with pkgs; [ [ coreutils-full ] [ curl libxml2 sqlite ] [ gitMinimal ] ]);
    copyToRoot = pkgs.buildEnv {
      name = "profile";
      paths = with pkgs; [
        bashInteractive
        cacert
        coreutils-full
        curl
        findutils
        gitMinimal
        gnugrep
        gnutar
        gzip
        iana-etc
        less
        libxml2
        man
        nix
        openssh
        shadow
        sqlite
        wget
        which
      ];
      pathsToLink = [ "/bin" "/etc" ];
      ignoreCollisions = true;
    };
    initializeNixDatabase = true;
    config.Cmd = [ "/bin/bash" ];
  };

  roots = version:
    let
      own = pkgs.runCommand "own" { } ''
        mkdir -p $out/bin
        { echo '#!${pkgs.bash}/bin/bash'; echo 'echo version ${version}'; echo exit; head -c 86000 ${pkgs.bash}/bin/bash | base64; } > $out/bin/own
        chmod +x $out/bin/own
      '';
      image = name: arguments: stowage.buildImage ({ name = "e2e/${name}"; tag = version; maxLayers = 12; config.Cmd = [ "${own}/bin/own" ]; } // arguments);
      links = paths: pkgs.buildEnv { name = "links"; inherit paths; pathsToLink = [ "/bin" ]; };
    in
    {
      "toolsApp${version}" = image "tools-app" { copyToRoot = [ pkgs.bash pkgs.coreutils pkgs.curl ]; };
      "linkedApp${version}" = image "linked-app" {
        copyToRoot = [ (links [ pkgs.bash pkgs.coreutils own ]) (pkgs.writeTextDir "etc/motd" "welcome") ];
        initializeNixDatabase = true;
      };
      # As people have them: tools and the application linked in one `/bin`, files in `/etc`, a user.
      "accountsApp${version}" = image "accounts-app" {
        copyToRoot = links (with pkgs; [ bash coreutils curl gnugrep own ]);
        accounts.users.app = { uid = 1000; groups = [ "data" ]; };
        accounts.groups.data.gid = 5000;
        user = "app";
        files."/etc/app.conf".text = "data = /srv/data\n";
        tmp = true;
      };
      "layeredApp${version}" = stowage.dockerTools.streamLayeredImage {
        name = "e2e/layered-app";
        tag = version;
        contents = with pkgs; [ bash coreutils curl own (writeTextDir "etc/motd" "welcome") ];
        config.Cmd = [ "/bin/own" ];
      };
      "lixApp${version}" = lix.override {
        name = "e2e/lix-app";
        tag = version;
        config.Cmd = [ "${own}/bin/own" ];
      };
    };
  library = pkgs.runCommand "library" { } ''
    mkdir -p $out/dist
    printf '#!${pkgs.bash}/bin/bash\necho program ran\n' > $out/dist/cli.sh
    chmod +x $out/dist/cli.sh
  '';
  linkedProgram = pkgs.runCommand "program" { } ''
    mkdir -p $out/opt
    ln -s ../../$(basename ${library})/dist/cli.sh $out/opt/program
  '';
in
{
  inherit listed;
  onListed = stowage.buildImage { name = "e2e/on-listed"; fromImage = listed; };
  listedByTools = stowage.dockerTools.buildLayeredImage { name = "e2e/listed-by-tools"; contents = [ described ]; };

  # Nothing but what the config mentions.
  configOnly = stowage.buildImage {
    name = "E2E/Config-Only";
    config = {
      entrypoint = [ "${pkgs.coreutils}/bin/echo" ];
      Cmd = [ "said by coreutils" ];
    };
  };

  app1 = appImage "v1";
  app2 = appImage "v2";
  smallApp1 = smallAppImage "v1";
  smallApp2 = smallAppImage "v2";
  app2AfterApp1 = (appImage "v2").override { previousImage = (appImage "v1").spec; };

  # For another platform than the one that builds it and runs its scripts.
  cross = let inherit (pkgs.pkgsCross.aarch64-multiplatform) hello stowage; in stowage.buildImage {
    name = "e2e/cross";
    config.Cmd = [ "${hello}/bin/hello" ];
  };
  # Scripts for another platform than the one that builds them, as on a Mac with a Linux builder.
  scriptsElsewhere =
    let elsewhere = import ../../nix/lib.nix { inherit pkgs; scriptPkgs = pkgs.pkgsCross.aarch64-multiplatform; }; in
    elsewhere.buildImage { name = "e2e/scripts-elsewhere"; config.Cmd = [ "${pkgs.hello}/bin/hello" ]; };

  # More store paths than layers, files in /, a store path that is a file, odd settings.
  full = stowage.buildImage {
    name = "e2e/full";
    tag = "all";
    maxLayers = 5;
    created = "2024-05-13T09:31:10Z";
    copyToRoot = [
      (pkgs.buildEnv { name = "root"; paths = [ pkgs.bash pkgs.coreutils ]; pathsToLink = [ "/bin" ]; })
      (pkgs.writeTextDir "etc/motd" "welcome\n")
    ];
    config = {
      Cmd = [ "/bin/bash" "-c" "cat /etc/motd $FILE" ];
      Env = [ "PATH=/bin" "FILE=${pkgs.writeText "file" "a store path that is a file\n"}" ];
      Labels.odd = "ü \"quoted\" $dollar";
      ExposedPorts."80/tcp" = { };
      Healthcheck = { Test = [ "CMD" "/bin/true" ]; Interval = "5s"; Timeout = "1m30s"; StartPeriod = "500ms"; Retries = 3; };
      WorkingDir = "/etc";
    };
  };

  # One layer for everything, the files in / among it.
  oneLayer = stowage.buildImage {
    name = "e2e/one-layer";
    maxLayers = 1;
    copyToRoot = pkgs.buildEnv { name = "root"; paths = [ pkgs.bash pkgs.coreutils ]; pathsToLink = [ "/bin" ]; };
    config.Cmd = [ "/bin/ls" "/" ];
  };

  # Copied to / and mentioned by its store path as well: there in both places.
  copiedAndMentioned = let tool = pkgs.writeShellScriptBin "tool" "echo tool"; in
    stowage.buildImage {
      name = "e2e/copied-and-mentioned";
      copyToRoot = tool;
      config.Cmd = [ "${tool}/bin/tool" ];
    };

  # No file at all.
  empty = stowage.buildImage { name = "e2e/empty"; };

  inherit withNix onNix onNixArchive onNixDockerTools withoutDatabase;

  inherit lix;

  # An application of 86 kB on 10 MB of tools that are copied to `/`, with a database of all of it, and
  # with tools of which the root has links.
  inherit (roots "1") toolsApp1 linkedApp1 accountsApp1 layeredApp1 lixApp1;
  inherit (roots "2") toolsApp2 linkedApp2 accountsApp2 layeredApp2 lixApp2;

  # Links of what is copied to `/`: relative ones into another package, a whole directory on a base
  # that has one, a store path that is a link.
  links = stowage.buildImage {
    name = "e2e/links";
    tag = "v1";
    fromImage = distribution;
    copyToRoot = [
      [ (pkgs.runCommand "linked" { } "ln -s ${linkedProgram} $out") ]
      (pkgs.runCommand "tools" { } "mkdir $out; ln -s ${pkgs.gnugrep}/bin $out/bin")
    ];
    config.Cmd = [ "/usr/bin/bash" "-c" "/opt/program; ls -l /bin /usr/bin/bash > /dev/null; grep --version | head -1" ];
  };

  # Layers in layers, one of them twice, and store paths that several have.
  layered = stowage.buildImage {
    name = "e2e/layered";
    layers = [
      bashLayer
      (stowage.buildLayer {
        deps = [ pkgs.bash pkgs.coreutils ];
        metadata = { created_by = "tools"; author = "me"; comment = "with bash"; };
      })
      (fileLayer "upper" [ (fileLayer "lower" [ bashLayer ]) ])
      bashLayer
    ];
    config.Cmd = [ "${pkgs.bash}/bin/bash" "-c" "${pkgs.coreutils}/bin/cat /etc/lower /etc/upper" ];
  };

  # Each layer on the one before.
  chained = stowage.buildImage {
    name = "e2e/chained";
    layers = pkgs.lib.foldl' (below: number: [ (fileLayer "file${toString number}" below) ]) [ ] (pkgs.lib.range 1 20);
  };

  # On a base image, through whose `bin -> usr/bin` it is written.
  based = stowage.buildImage {
    name = "e2e/based";
    tag = "v1";
    fromImage = distribution;
    copyToRoot = [
      (pkgs.writeTextDir "tmp/file" "")
      (pkgs.writeShellScriptBin "app" "readlink /bin; stat -c %a /tmp; ls /usr/bin/app; echo $BASE $OURS; pwd")
    ];
    config = {
      Entrypoint = [ "/bin/app" ];
      Env = [ "OURS=ours" ];
    };
  };

  # Compressed for registries.
  compressed = stowage.buildImage {
    name = "e2e/compressed";
    tag = "v1";
    config.Cmd = [ "${pkgs.coreutils}/bin/echo" "compressed" ];
    compression = "gzip";
  };
  # The same, with the compressed layers in the store.
  compressedKept = stowage.buildImage {
    name = "e2e/compressed";
    tag = "kept";
    config.Cmd = [ "${pkgs.coreutils}/bin/echo" "compressed" ];
    compression = "gzip";
    keepCompressed = true;
  };
  compressedByZstd = stowage.buildImage {
    name = "e2e/compressed";
    tag = "zstd";
    config.Cmd = [ "${pkgs.coreutils}/bin/echo" "compressed" ];
    compression = "zstd";
  };
  # Layers of which clients fetch pieces; and the same with another libc, so that each store path has
  # another hash.
  chunked = stowage.buildImage {
    name = "e2e/chunked";
    tag = "v1";
    config.Cmd = [ "${pkgs.coreutils}/bin/echo" "chunked" ];
    compression = "zstd:chunked";
  };
  chunkedRebuilt = stowage.buildImage {
    name = "e2e/chunked";
    tag = "v2";
    config.Cmd = [ "${rebuilt.coreutils}/bin/echo" "chunked" ];
    compression = "zstd:chunked";
  };

  # With annotations: null leaves one out.
  annotated = stowage.buildImage {
    name = "e2e/annotated";
    tag = "v1";
    copyToRoot = pkgs.writeTextDir "data" "annotated";
    annotations = { "org.opencontainers.image.source" = "https://example.org/ü"; "org.example.none" = null; };
  };

  # For two platforms; the second is of data alone, as no program for it is at hand.
  index = stowage.buildIndex {
    name = "e2e/index";
    tag = "v1";
    images = [
      (stowage.buildImage { name = "amd64"; config.Cmd = [ "${pkgs.coreutils}/bin/echo" "for amd64" ]; compression = "gzip"; })
      {
        image = stowage.buildImage { name = "arm64"; arch = "arm64"; copyToRoot = pkgs.writeTextDir "data" "for arm64"; };
        annotations."org.example.tested" = "no";
      }
    ];
    annotations."org.opencontainers.image.title" = "both";
  };

  # The base alone: as an image, and as others hand it on.
  inherit distribution distributionImage;

  # The same closure by way of `closureInfo`.
  registration = pkgs.closureInfo { rootPaths = [ pkgs.git ]; };
}
