{
  description = "An image on somebody else's";

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
        # nix run .#default.copyToDockerDaemon && docker run --rm on-alpine:v1
        default = pkgs.stowage.buildImage {
          name = "on-alpine";
          tag = "v1";
          # Replace these arguments by the output of `stowage prefetch docker.io/library/alpine:3.22`.
          fromImage = pkgs.stowage.pullImage {
            imageName = "docker.io/library/alpine";
            imageDigest = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
            hash = nixpkgs.lib.fakeHash;
          };
          # The base's Env, with its PATH, is inherited.
          config.Cmd = [ "/bin/sh" "-c" "${pkgs.hello}/bin/hello --greeting=\"hello from $(cat /etc/hostname)\"" ];
        };
      });
  };
}
