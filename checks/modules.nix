# tests/e2e/modules.nix by NixOS and flake-parts, and the examples of docs/modules.md by Home Manager and devenv, for
# checks/modules.
{ nixpkgs, flakeParts ? null, homeManager ? null, devenv ? null, mkShellBin ? null }:
let
  system = "x86_64-linux";
  pkgs = import nixpkgs { inherit system; config = { }; overlays = [ ]; };
  inherit (pkgs) lib;

  evalSystem = module: (import "${nixpkgs}/nixos/lib/eval-config.nix" {
    inherit system;
    modules = [
      ../nix/modules/nixos.nix
      {
        nixpkgs.pkgs = pkgs;
        system.stateVersion = lib.trivial.release;
        boot.isContainer = true;
        security.acme = {
          acceptTerms = true;
          defaults.email = "a@registry.example";
          certs."registry.example".webroot = "/var/www";
        };
      }
      module
    ];
  }).config;

  flakePartsFlake = (import "${flakeParts}/flake.nix").outputs { nixpkgs-lib = { inherit lib; outPath = nixpkgs; }; self = flakeParts; };
  evalPerSystem = module:
    let
      self = { inputs = { nixpkgs = { inherit lib; legacyPackages.${system} = pkgs; outPath = nixpkgs; }; inherit self; }; outPath = ./.; };
      flake = flakePartsFlake.lib.mkFlake { inputs = self.inputs; inherit self; } {
        imports = [ ../nix/modules/flake-parts.nix ];
        systems = [ system ];
        perSystem = { imports = [ module { _module.args.pkgs = lib.mkForce pkgs; } ]; };
      };
    in
    lib.mapAttrs (_: outputs: outputs.${system}) { inherit (flake) packages apps checks; };

  evaluated = import ../tests/e2e/modules.nix ({ inherit pkgs evalSystem; } // lib.optionalAttrs (flakeParts != null) { inherit evalPerSystem; });

  stowage = import ../nix/lib.nix { inherit pkgs; };
  hello = stowage.buildImage { name = "hello"; config.Cmd = [ "${pkgs.hello}/bin/hello" ]; };
  container = evalSystem {
    virtualisation.oci-containers = {
      backend = "podman";
      containers.hello = { image = hello.imageRefUnsafe; imageStream = hello; };
    };
  };

  aHome = { config, ... }: {
    home = { username = "a"; homeDirectory = "/home/a"; stateVersion = config.home.version.release; };
  };
  evalHome = module: (import "${homeManager}/modules" {
    inherit pkgs;
    configuration.imports = [ aHome module ];
  }).config;
  home = evalHome
    ({ lib, ... }: {
      systemd.user.services.stowage = {
        Unit.Description = "Registry of images from Nix closures";
        Install.WantedBy = [ "default.target" ];
        Service = {
          ExecStart = "${stowage.program}/bin/stowage serve team/hello:v1=${hello.spec} --cache %C/stowage";
          Restart = "on-failure";
        };
      };
      home.activation.images =
        lib.hm.dag.entryBetween [ "reloadSystemd" ] [ "writeBoundary" ] "run ${lib.getExe hello.copyToPodman}";
    });
  # Home Manager's own function would check assertions, for which containers are built during evaluation.
  homeContainers =
    let homeLib = import "${homeManager}/modules/lib/stdlib-extended.nix" lib; in
    (homeLib.evalModules {
      class = "homeManager";
      modules = import "${homeManager}/modules/modules.nix" { inherit pkgs; lib = homeLib; } ++ [
        aHome
        { services.podman = { enable = true; containers.hello.image = hello.imageRefUnsafe; }; }
      ];
    }).config;

  environment =
    let
      inputs = {
        nix2container.packages.${system} = { nix2container = stowage; skopeo-nix2container = stowage.skopeo; };
        mk-shell-bin.lib.mkShellBin = import "${mkShellBin}/make.nix";
        self = ../template;
      };
    in
    (lib.evalModules {
      class = "devenv";
      specialArgs = inputs // { inherit inputs; };
      modules = [
        "${devenv}/src/modules/top-level.nix"
        {
          _module.args.pkgs = pkgs;
          name = "project";
          task.package = pkgs.hello; # would be built during evaluation
          devenv = { root = "/project"; flakesIntegration = true; warnOnNewVersion = false; };
          containers.hello = {
            copyToRoot = ../template;
            startupCommand = "${pkgs.hello}/bin/hello";
            layers = [{ deps = [ pkgs.hello ]; }];
          };
        }
      ];
    }).config;

  plain = builtins.unsafeDiscardStringContext;
in
{
  inherit (evaluated) systems mistakes outputs;
  home = {
    activationPackage = plain home.home.activationPackage.drvPath;
    service = plain (builtins.toJSON home.systemd.user.services.stowage);
    step = home.home.activation.images.before ++ home.home.activation.images.after;
    container = plain (builtins.head homeContainers.services.podman.internal.quadletDefinitions).source;
  };
  environment = {
    image = plain environment.containers.hello.derivation.drvPath;
    copy = plain environment.containers.hello.copyScript.drvPath;
  };
  # The image that `virtualisation.oci-containers` loads, and the script that starts its container.
  containers =
    let inherit (container.virtualisation.oci-containers.containers.hello) image imageStream; in
    builtins.unsafeDiscardStringContext "${image} from ${imageStream}\n${container.systemd.services.podman-hello.script}";
  units = lib.mapAttrs (_: config: builtins.unsafeDiscardStringContext config.systemd.units."stowage.service".text)
    evaluated.accepted;
}
