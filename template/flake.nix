{
  description = "Container images";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    stowage = {
      url = "git+file:///where/you/cloned/stowage";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs = { nixpkgs, stowage, ... }:
    let
      inherit (nixpkgs) lib;
      systems = [ "x86_64-linux" "aarch64-linux" ];
      eachSystem = f: lib.genAttrs systems
        (system: f (nixpkgs.legacyPackages.${system}.extend stowage.overlays.default));
    in
    {
      packages = eachSystem (pkgs: rec {
        default = hello;

        # An application and everything that it needs. Layers that the last version had are not sent again.
        #   nix run .#hello.copyToDockerDaemon
        hello = pkgs.stowage.buildImage {
          name = "hello";
          tag = "v1";
          config.Cmd = [ "${pkgs.hello}/bin/hello" ];
        };

        # stowage's own image with a Nix in it, and further users and programs.
        #   nix run .#development.copyToPodman
        development = stowage.packages.${pkgs.stdenv.hostPlatform.system}.dockerImage.override {
          name = "development";
          tag = "latest";
          extraPkgs = [ pkgs.tree ];
          # A layer for each list: put together what changes together, and first what seldom changes.
          extraLayerPkgs = [ [ pkgs.python3 ] [ pkgs.jq ] ];
          nixConf.experimental-features = [ "nix-command" "flakes" ];
          users.alice = { uid = 1000; description = "Alice"; groups = [ "wheel" ]; };
          groups.wheel.gid = 10;
          bundleNixpkgs = false;
        };
      });
    };
}
