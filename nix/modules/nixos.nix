# services.stowage: a registry on NixOS, whose images are part of the system's configuration.
#
#   imports = [ inputs.stowage.nixosModules.default ]; # or "${stowage}/nix/modules/nixos.nix"
{ config, lib, pkgs, ... }:
let
  inherit (lib) literalExpression mkIf mkOption types;
  cfg = config.services.stowage;

  scalar = types.oneOf [ types.bool types.int types.str types.path types.package ];

  # The options of `stowage serve` from `settings`.
  options = lib.concatLists (lib.mapAttrsToList option cfg.settings);
  option = name: value:
    if value == null || value == false then [ ]
    else if value == true then [ "--${name}" ]
    else if lib.isList value then lib.concatMap (option name) value
    else [ "--${name}=${text value}" ];
  # The text of a value. A path below a flake is in the store: the system has to have it.
  text = value: if builtins.isPath value && isStored value then "${value}" else toString value;
  isStored = file: lib.hasPrefix "${builtins.storeDir}/" (toString file);

  # The ports of the addresses in `settings`, which may differ from `port`.
  listenPorts = portsOf "listen";
  isLocal = lib.all
    (address: lib.any (prefix: lib.hasPrefix prefix (toString address)) [ "127." "localhost:" "[::1]:" ])
    (lib.toList cfg.settings.listen);
  hasLowPort = lib.any (port: port < 1024) (listenPorts ++ portsOf "admin-listen");
  portsOf = name: map (portOf name) (lib.filter (address: address != null) (lib.toList (cfg.settings.${name} or null)));
  portOf = name: address:
    let port = builtins.match ".*:([0-9]{1,5})" (toString address); in
    if port == null
    then throw "services.stowage.settings.${name}: `${toString address}` must be an address and a port, such as `0.0.0.0:5000`"
    else lib.toIntBase10 (lib.head port);

  # systemd expands `%` and `$`, so both are doubled. The paths of credentials begin with `%d`, which is not
  # escaped.
  escape = argument: lib.replaceStrings [ "%" "$" ] [ "%%" "$$" ] (builtins.toJSON argument);
  credentials =
    lib.optional (cfg.tls.certificate != null) { option = "tls-cert"; name = "certificate"; file = cfg.tls.certificate; }
    ++ lib.optional (cfg.tls.key != null) { option = "tls-key"; name = "key"; file = cfg.tls.key; }
    ++ lib.optional (cfg.htpasswd != null) { option = "htpasswd"; name = "htpasswd"; file = cfg.htpasswd; };

  secrets = [
    { option = "tls.key"; file = cfg.tls.key; }
    { option = "environmentFile"; file = cfg.environmentFile; }
    { option = "settings.tls-key"; file = cfg.settings.tls-key or null; }
  ];

  # A directory for `stowage serve`, in which REPOSITORY/TAG is a link to an image spec.
  link = name: image:
    let inherit (parts name) repository tag; in
    ''
      mkdir -p $out/${repository}
      ln -s ${image.spec or image} $out/${repository}/${tag}
      ${lib.optionalString (image.attachments or null != null) "ln -s ${image.attachments} $out/${repository}/${tag}@attach"}
    '';
  # The repository and the tag of a name (distribution-spec, "Pulling manifests").
  parts = name:
    let
      given = builtins.match "([^:]*):([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})" name;
      repository = lib.head given;
      isRepository = import ../is-repository.nix { inherit lib; };
    in
    if given == null || !isRepository (lib.splitString "/" repository)
    then throw "services.stowage.images: `${name}` must be a name and a tag, such as `team/hello:v1`"
    else { inherit repository; tag = lib.last given; };
  # Images whose file would have the place of another image's directory: `a:b` beside `a/b:c`.
  hidden = lib.filter
    (name: let inherit (parts name) repository tag; in lib.any (lib.hasPrefix "${repository}/${tag}/") directories)
    (lib.attrNames cfg.images);
  directories = map (name: "${(parts name).repository}/") (lib.attrNames cfg.images);
  images = pkgs.runCommand "stowage-images" { } ''
    mkdir $out
    ${lib.concatStrings (lib.mapAttrsToList link cfg.images)}
  '';

  # Declares an option that may be null.
  optional = type: attributes: mkOption ({ type = types.nullOr type; default = null; } // attributes);

  sources = lib.optional (cfg.images != { }) "/etc/stowage/images" ++ map text cfg.directories;
  hasAcme = cfg.tls.acmeHost != null;
  usesNix = cfg.packages != null;
in
{
  options.services.stowage = {
    enable = lib.mkEnableOption "stowage serve, a read-only registry of images from Nix closures";

    package = mkOption {
      type = types.package;
      default = (import ../lib.nix { inherit pkgs; }).serve;
      defaultText = literalExpression "pkgs.stowage.serve";
      description = "The package with `bin/stowage-serve`.";
    };

    images = mkOption {
      type = types.attrsOf (types.nullOr (types.either types.package types.path));
      default = { };
      apply = lib.filterAttrs (_: image: image != null);
      example = literalExpression ''{ "team/hello:v1" = pkgs.stowage.buildImage { name = "hello"; }; }'';
      description = ''
        Images by name and tag: the result of `buildImage`, or a file with an image spec. Documents of `buildImage { attach }` are
        served with the image. `lib.mkForce null` removes the image of another module.
        A new configuration of the system replaces the images while the server runs.
      '';
    };

    directories = mkOption {
      type = types.listOf types.path;
      default = [ ];
      example = literalExpression ''[ "/srv/images" ]'';
      description = "Directories of images that are not part of the configuration: `REPOSITORY/TAG` is an image spec, or a link to one.";
    };

    packages = optional types.str {
      example = "nixpkgs!nixos-unstable";
      description = "Source of packages, of which Nix builds images when clients pull these by the names of packages.";
    };

    requireSigs = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether images of `packages` only have store paths that a trusted key signed. The keys are those of Nix
        (`nix.settings.trusted-public-keys`), or those in `settings.trusted-public-key`. Packages are then fetched and not
        built, unless `settings.allow-local-builds` is `true`.
      '';
    };

    listenAddress = mkOption {
      type = types.str;
      default = "127.0.0.1";
      example = "[::]";
      description = "Address to listen on, or a host name. An IPv6 address has brackets.";
    };

    port = mkOption {
      type = types.port;
      default = 5000;
      description = "Port to listen on. `settings.listen` has another address and port in place of `listenAddress` and `port`.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the firewall allows connections to the port of images. It does not open the port of `settings.admin-listen`.";
    };

    tls.certificate = optional types.path {
      example = "/var/lib/secrets/registry.pem";
      description = "Certificate for HTTPS, and the certificates of its issuers, as PEM. It is read as root when the service starts.";
    };

    tls.key = optional types.path {
      example = "/var/lib/secrets/registry.key";
      description = "Key of the certificate, as PEM. It is read as root when the service starts, and must not be in the store.";
    };

    tls.acmeHost = optional types.str {
      example = "registry.example";
      description = "Name of a certificate of `security.acme.certs` for HTTPS. A renewed certificate is used without a restart.";
    };

    htpasswd = optional types.path {
      example = "/var/lib/secrets/htpasswd";
      description = "File of users that `htpasswd -B` wrote; without it, every client may pull. It is read as root when the service starts.";
    };

    cache.enable = mkOption {
      type = types.bool;
      default = true;
      description = "Whether layers are kept in `/var/cache/stowage` once they are made.";
    };

    cache.size = mkOption {
      type = types.str;
      default = "10G";
      description = "Largest number of bytes of layers that are kept; K, M, G and T are powers of 1024.";
    };

    storage = optional types.str {
      example = "s3://images/nixos";
      description = "Object storage in which servers share the images of `packages`. Its credentials are in `environmentFile`.";
    };

    environmentFile = optional types.path {
      example = "/var/lib/secrets/stowage.env";
      description = "File with secret environment variables, such as `AWS_SECRET_ACCESS_KEY=…`. systemd reads it as root. It must not be in the store.";
    };

    settings = mkOption {
      type = types.attrsOf (types.nullOr (types.either scalar (types.listOf scalar)));
      default = { };
      example = literalExpression ''{ max-connections = 512; log-format = "json"; }'';
      description = ''
        Options of `stowage serve` by their long names, for which this module has no option of its own. `true` gives the option
        without a value, a list gives it once for each element, `false` and `null` leave it out.
      '';
    };

    extraArgs = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Further arguments of `stowage serve`.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = sources != [ ] || usesNix;
        message = "services.stowage serves nothing: give it `images`, `directories` or `packages`.";
      }
      {
        assertion = usesNix || !cfg.requireSigs;
        message = "services.stowage.requireSigs is for images of `packages`, which is not set.";
      }
      {
        assertion = usesNix || cfg.storage == null;
        message = "services.stowage.storage is for images of `packages`, which is not set.";
      }
      {
        assertion = hidden == [ ];
        message = "services.stowage.images: `${toString hidden}` has the place of another image's directory in the directory of images: give it another tag, or serve one of the two from `directories`.";
      }
      {
        assertion = (cfg.tls.certificate == null) == (cfg.tls.key == null);
        message = "services.stowage.tls: `certificate` and `key` go together.";
      }
      {
        assertion = !hasAcme || cfg.tls.certificate == null;
        message = "services.stowage.tls: give `acmeHost`, or `certificate` and `key`, and not both.";
      }
    ] ++ map
      ({ option, file }: {
        assertion = !isStored file;
        message = "services.stowage.${option} is in the Nix store, where everybody can read it: give the path of a file elsewhere as a string.";
      })
      secrets
    ++ map
      ({ option, file, ... }: {
        assertion = (cfg.settings.${option} or null) == null;
        message = "services.stowage.settings.${option} is given twice: `${toString cfg.settings.${option}}`, and `${toString file}` by an option of its own.";
      })
      credentials;

    warnings = lib.optional (cfg.openFirewall && isLocal)
      "services.stowage.openFirewall has no effect: the server only listens on this machine itself. Set `listenAddress`, for example to `[::]`.";

    services.stowage.settings = {
      listen = lib.mkDefault "${cfg.listenAddress}:${toString cfg.port}";
      cache = mkIf cfg.cache.enable (lib.mkDefault "/var/cache/stowage/layers");
      cache-size = mkIf cfg.cache.enable (lib.mkDefault cfg.cache.size);
      packages = mkIf (cfg.packages != null) (lib.mkDefault cfg.packages);
      require-sigs = mkIf (usesNix && cfg.requireSigs) (lib.mkDefault true);
      roots = mkIf usesNix (lib.mkDefault "/var/lib/stowage/roots");
      storage = mkIf (cfg.storage != null) (lib.mkDefault cfg.storage);
      tls-cert = mkIf (hasAcme && cfg.tls.certificate == null) (lib.mkDefault "/var/lib/acme/${cfg.tls.acmeHost}/fullchain.pem");
      tls-key = mkIf (hasAcme && cfg.tls.key == null) (lib.mkDefault "/var/lib/acme/${cfg.tls.acmeHost}/key.pem");
    };

    # The server notices changes of these images, and is not restarted for them.
    environment.etc = mkIf (cfg.images != { }) { "stowage/images".source = images; };

    networking.firewall = mkIf cfg.openFirewall { allowedTCPPorts = listenPorts; };

    systemd.services.stowage = {
      description = "Registry of images from Nix closures";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ] ++ lib.optional hasAcme "acme-${cfg.tls.acmeHost}.service";
      # The Nix of this machine, which has the settings for its daemon.
      path = lib.optional usesNix config.nix.package;
      environment.XDG_CACHE_HOME = "/var/cache/stowage";
      environment.HOME = "/var/lib/stowage";

      serviceConfig = {
        Type = "exec";
        ExecStart = lib.concatStringsSep " " (
          [ "${cfg.package}/bin/stowage-serve" ]
          ++ map escape options
          ++ map (credential: "--${credential.option}=%d/${credential.name}") credentials
          ++ map escape (cfg.extraArgs ++ sources)
        );
        ExecReload = "${pkgs.runtimeShell} -c 'kill -HUP \${MAINPID}'";
        LoadCredential = map (credential: "${credential.name}:${toString credential.file}") credentials;
        EnvironmentFile = lib.optional (cfg.environmentFile != null) (toString cfg.environmentFile);
        # The server first finishes running requests (`--grace`) and builds.
        KillMode = "mixed";
        Restart = "on-failure";

        DynamicUser = true;
        SupplementaryGroups = lib.optional hasAcme (
          config.security.acme.certs.${cfg.tls.acmeHost}.group or
            (throw "services.stowage.tls.acmeHost: `security.acme.certs` has no certificate `${cfg.tls.acmeHost}`")
        );
        StateDirectory = "stowage";
        CacheDirectory = "stowage";
        StateDirectoryMode = "0700";
        CacheDirectoryMode = "0700";
        UMask = "0077";

        AmbientCapabilities = lib.optional hasLowPort "CAP_NET_BIND_SERVICE";
        CapabilityBoundingSet = if hasLowPort then [ "CAP_NET_BIND_SERVICE" ] else [ "" ];
        KeyringMode = "private";
        LimitNOFILE = 16384;
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateMounts = true;
        PrivateTmp = true;
        # A user namespace would forbid low ports, and reading files of another group.
        PrivateUsers = !hasLowPort && !hasAcme;
        ProcSubset = "pid";
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        RemoveIPC = true;
        RestrictAddressFamilies = [ "AF_INET" "AF_INET6" "AF_UNIX" ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallFilter = [ "@system-service" "~@privileged" ]
          # Nix sets limits for its own processes.
          ++ lib.optional (!usesNix) "~@resources";
        SystemCallErrorNumber = "EPERM";
      };
    };
  };
}
