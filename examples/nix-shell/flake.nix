{
  description = "The environment of nix develop, as an image";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.stowage.url = "git+file:///where/you/cloned/stowage";
  inputs.stowage.inputs.nixpkgs.follows = "nixpkgs";

  outputs = { nixpkgs, stowage, ... }: {
    packages = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system:
      let
        # nixpkgs, with stowage's functions as pkgs.stowage.
        pkgs = stowage.legacyPackages.${system};

        environment = pkgs.mkShell {
          packages = [ pkgs.hello pkgs.jq ];
          GREETING = "welcome";
        };
      in
      {
        # nix run .#default.copyToDockerDaemon && docker run --rm --interactive --tty nix-shell:v1
        default = pkgs.stowage.dockerTools.streamNixShellImage {
          name = "nix-shell";
          tag = "v1";
          drv = environment;
        };
      });
  };
}
