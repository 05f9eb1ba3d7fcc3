{
  description = "Images of packages that are given by name";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.stowage.url = "git+file:///where/you/cloned/stowage";
  inputs.stowage.inputs.nixpkgs.follows = "nixpkgs";

  outputs = { nixpkgs, stowage, ... }: {
    packages = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system:
      let
        # nixpkgs, with stowage's functions as pkgs.stowage.
        pkgs = stowage.legacyPackages.${system};
      in
      {
        # nix run .#default.copyToDockerDaemon && docker run --rm --interactive --tty shell/git/jq:v1
        # The same from a registry that builds what is asked for: stowage serve --packages
        default = pkgs.stowage.buildImageFromNames {
          name = "shell/git/jq";
          tag = "v1";
          packages = [ "shell" "git" "jq" ];
        };
      });
  };
}
