# The modules of nix/modules, evaluated: systems with `services.stowage` and what becomes of each, and
# the outputs of a flake by flake-parts. `checks/modules` does so by NixOS and flake-parts themselves.
{ pkgs
, lib ? pkgs.lib
  # By which a NixOS module becomes a configuration.
, evalSystem ? null
  # By which a module of flake-parts' `perSystem` does.
, evalPerSystem ? null
}:
let
  inherit (lib) mkOption types;
  stowage = import ../../nix/lib.nix { inherit pkgs; };
  hello = stowage.buildImage { name = "hello"; config.Cmd = [ "${pkgs.hello}/bin/hello" ]; };

  eval = modules: module: (lib.evalModules { modules = modules ++ [ module ]; specialArgs = { inherit pkgs; }; }).config;
  orElse = default: given: if given == null then default else given;
  # What NixOS and flake-parts have beside the modules, where these are not to be had.
  set = mkOption { type = types.lazyAttrsOf types.anything; default = { }; };
  options.options = {
    assertions = mkOption { type = types.listOf types.anything; default = [ ]; };
    warnings = mkOption { type = types.listOf types.str; default = [ ]; };
    environment.etc = set;
    networking.firewall.allowedTCPPorts = mkOption { type = types.listOf types.port; default = [ ]; };
    nix.package = mkOption { type = types.package; default = pkgs.nix; };
    security.acme.certs = set;
    systemd.services = mkOption { type = types.lazyAttrsOf types.raw; default = { }; };
  };
  outputs.options = { packages = set; apps = set; checks = set; };

  line = name: value: lib.concatMapStrings (value: "${name}=${toString (if value == true then "true" else if value == false then "false" else value)}\n") (lib.flatten [ value ]);
  unitText = config:
    let service = config.systemd.services.stowage; in
    ''
      [Unit]
      ${line "Description" service.description}${line "Wants" service.wants}${line "After" service.after}
      [Service]
      ${line "Environment" (lib.mapAttrsToList (name: value: "${name}=${value}") service.environment ++ [ "PATH=${lib.makeBinPath service.path}" ])}
      ${lib.concatStrings (lib.mapAttrsToList line service.serviceConfig)}'';

  systems = {
    images = {
      images = {
        "team/hello:v1" = hello;
        "spec:latest" = "${hello.spec}";
        "removed:v1" = lib.mkMerge [ hello (lib.mkForce null) ];
        "team/documented:v1" = hello.override {
          attach = { sbom }: [{ file = sbom; type = "application/spdx+json"; } { file = ./hello.py; type = "text/x-python"; }];
        };
      };
      openFirewall = true;
    };
    tls = {
      directories = [ "/srv/100% images" /srv/more ];
      listenAddress = "[::]";
      port = 443;
      tls = { certificate = "/var/lib/secrets/registry.pem"; key = "/var/lib/secrets/registry.key"; };
      htpasswd = "/var/lib/secrets/htpasswd";
      cache.enable = false;
      settings = { max-connections = 512; quiet = true; log-format = null; grace = lib.mkForce 30; };
      extraArgs = [ "--jobs=1" ];
    };
    acme = { directories = [ "/srv/images" ]; tls.acmeHost = "registry.example"; };
    packages = {
      packages = "nixpkgs!nixos-unstable";
      storage = "s3://images/nixos";
      environmentFile = "/var/lib/secrets/stowage.env";
      cache.size = "1G";
      requireSigs = true;
      openFirewall = true;
      settings.listen = "127.0.0.1:5001";
    };
    low = { directories = [ "/srv/images" ]; openFirewall = true; settings.listen = "[::]:80"; };
    admin = { directories = [ "/srv/images" ]; openFirewall = true; settings.admin-listen = "127.0.0.1:81"; };
    high = { directories = [ "/srv/images" ]; port = 443; openFirewall = true; settings.listen = "[::]:8443"; };
  } // mistakes;
  # Each is told what is missing.
  mistakes = {
    nothing = { };
    unsigned = { directories = [ "/srv" ]; requireSigs = true; };
    storage = { directories = [ "/srv" ]; storage = "s3://images/nixos"; };
    hidden = { images = { "a:b" = hello; "a:c" = hello; "a/b:c" = hello; "a/bc:d" = hello; }; };
    keyless = { directories = [ "/srv" ]; tls.certificate = "/c"; };
    stored = { directories = [ "/srv" ]; tls = { certificate = ./hello.py; key = "${./hello.py}"; }; };
    storedEnvironment = { directories = [ "/srv" ]; environmentFile = "${./hello.py}"; };
    twice = { directories = [ "/srv" ]; htpasswd = "/var/lib/secrets/htpasswd"; settings.htpasswd = "/etc/htpasswd"; };
    both = { directories = [ "/srv" ]; tls = { certificate = "/c"; key = "/k"; acmeHost = "registry.example"; }; };
  };
  # A certificate that the system does not have.
  withoutCertificate = evalService "other.example" systems.acme;
  evaluated = lib.mapAttrs (_: evalService "registry.example") systems;
  evalService = certificate: service: (orElse (eval [ ../../nix/modules/nixos.nix options ]) evalSystem) {
    services.stowage = service // { enable = true; };
    security.acme.certs.${certificate}.group = "acme";
  };
  accepted = removeAttrs evaluated (lib.attrNames mistakes);

  evalFlake = modules: orElse (eval [ ../../nix/modules/images.nix outputs ]) evalPerSystem {
    imports = map (images: { stowage.images = images; }) modules;
  };
  flake = evalFlake [
    {
      hello = {
        tag = "v1";
        config = { Cmd = [ "${pkgs.hello}/bin/hello" ]; Env = [ "A=1" ]; Labels.a = "1"; };
        accounts.users.app.uid = 1000;
        files."/etc/a".text = "a";
        copyToRoot = [ (pkgs.writeTextDir "one" "1") ];
        checks.verify = true;
        maxLayers = 3;
      };
      quiet = { name = "team/quiet"; checks.lint = false; };
      removed.config.Cmd = [ "a" ];
      absent = null;
      conditional = lib.mkIf false { };
    }
    {
      hello = {
        config = { Env = [ "B=2" ]; Labels.b = "2"; };
        accounts.users.web.uid = 1001;
        files."/etc/b".text = "b";
        copyToRoot = [ (pkgs.writeTextDir "two" "2") ];
        checks.structure = [{
          metadataTest = {
            entrypoint = [ ];
            envVars = [{ key = "A"; value = "1"; } { key = "B"; value = "2"; }];
            labels = [{ key = "a"; value = "1"; } { key = "b"; value = "2"; }];
          };
          fileContentTests = [{ name = "users"; path = "/etc/passwd"; expectedContents = [ "app:x:1000:" "web:x:1001:" ]; }];
          fileExistenceTests = map (path: { name = path; inherit path; }) [ "/etc/a" "/etc/b" "/one" "/two" ];
        }];
      };
      removed = lib.mkForce null;
    }
  ];
  # Whether two modules may give an image these arguments.
  areMerged = first: second: (builtins.tryEval (evalFlake [{ a = first; } { a = second; }]).packages.a.drvPath).success;

  # The options of a tree, as the manual has them.
  documented = path: tree: lib.concatLists (lib.mapAttrsToList
    (name: value:
      let
        below = path ++ [ name ];
        text = value: value.text or (builtins.toJSON value);
      in
      if value._type or null != "option" then documented below value
      else [{
        name = lib.concatStringsSep "." below;
        inherit (value) description;
        type = value.type.description;
        default = if value ? default then text (value.defaultText or value.default) else null;
        example = if value ? example then text value.example else null;
      }] ++ lib.optionals (value.type ? nested) (documented below value.type.nested))
    tree);
  optionsOf = file: (import file { inherit lib pkgs; config = { }; }).options;
  # Whether each text is a name for an image of the service.
  isName = name: (builtins.tryEval ((orElse (eval [ ../../nix/modules/nixos.nix options ]) evalSystem) {
    services.stowage = { enable = true; images.${name} = hello; };
  }).environment.etc."stowage/images".source.drvPath).success;
in
{
  names = lib.genAttrs
    [ "a:v1" "team/a.b__c---d/e:V1_2" "a" ":v1" "a:" "a:b:c" "a//b:v1" "/a:v1" "a/:v1" "../a:v1" "a/../b:v1" ".a:v1" "A:v1" "a:.v1" "a b:v1" "a:$(id)" ]
    isName;
  documentation = {
    nixos = documented [ ] (optionsOf ../../nix/modules/nixos.nix);
    flakeParts = documented [ "perSystem" ] (optionsOf ../../nix/modules/images.nix);
  };
  # What each system is: strings, to be read as JSON.
  systems = lib.mapAttrs
    (_: config: {
      command = builtins.unsafeDiscardStringContext config.systemd.services.stowage.serviceConfig.ExecStart;
      inherit (config) warnings;
      failed = map (assertion: assertion.message) (lib.filter (assertion: !assertion.assertion) config.assertions);
      firewall = config.networking.firewall.allowedTCPPorts;
      capabilities = config.systemd.services.stowage.serviceConfig.AmbientCapabilities;
      credentials = config.systemd.services.stowage.serviceConfig.LoadCredential;
    })
    evaluated;
  mistakes = lib.attrNames mistakes;
  groups = withoutCertificate.systemd.services.stowage.serviceConfig.SupplementaryGroups;
  # The configurations without a mistake.
  inherit accepted;
  # The unit of each, and the directory of images.
  units = pkgs.runCommand "units" { } ''
    mkdir $out
    ln -s ${evaluated.images.environment.etc."stowage/images".source} $out/served
    ${lib.concatStrings (lib.mapAttrsToList (name: config: ''
      mkdir $out/${name}
      cp ${pkgs.writeText "stowage.service" (unitText config)} $out/${name}/stowage.service
    '')
      accepted)}
  '';
  outputs = lib.mapAttrs (_: lib.attrNames) { inherit (flake) packages apps checks; };
  conflicts = {
    variables = areMerged { config.Env = [ "A=1" ]; } { config.Env = [ "B=1" ]; };
    commands = areMerged { config.Cmd = [ "a" ]; } { config.Cmd = [ "b" ]; };
    chosen = areMerged { config.Cmd = [ "a" ]; } { config.Cmd = lib.mkForce [ "b" ]; };
    tags = areMerged { tag = "a"; } { tag = "b"; };
    arguments = areMerged { maxLayers = 3; } { maxLayers = 4; };
  };
  # An image that states nothing, by the module and by the function: the same derivation.
  plain = lib.mapAttrs (_: builtins.unsafeDiscardStringContext) {
    module = (evalFlake [{ a = { }; }]).packages.a.drvPath;
    function = (stowage.buildImage { name = "a"; }).drvPath;
  };
  # All that the flake has, built.
  flakeParts = pkgs.runCommand "flake-parts" { } ''
    mkdir $out
    ${lib.concatStrings (lib.mapAttrsToList (name: package: "ln -s ${package} $out/${name}\n") (flake.packages // flake.checks))}
    ${lib.concatStrings (lib.mapAttrsToList (name: app: "ln -s ${app.program} $out/${name}\n") flake.apps)}
  '';
}
