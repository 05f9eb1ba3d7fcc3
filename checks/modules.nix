# tests/e2e/modules.nix by NixOS and flake-parts, for checks/modules.
{ nixpkgs, flakeParts ? null }:
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
in
{
  inherit (evaluated) systems mistakes outputs;
  # The image that `virtualisation.oci-containers` loads, and the script that starts its container.
  containers =
    let inherit (container.virtualisation.oci-containers.containers.hello) image imageStream; in
    builtins.unsafeDiscardStringContext "${image} from ${imageStream}\n${container.systemd.services.podman-hello.script}";
  units = lib.mapAttrs (_: config: builtins.unsafeDiscardStringContext config.systemd.units."stowage.service".text)
    evaluated.accepted;
}
