{
  description = "PostgreSQL, which makes its database at the first start";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.stowage.url = "git+file:///where/you/cloned/stowage";
  inputs.stowage.inputs.nixpkgs.follows = "nixpkgs";

  outputs = { nixpkgs, stowage, ... }: {
    packages = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system:
      let
        # nixpkgs, with stowage's functions as pkgs.stowage.
        pkgs = stowage.legacyPackages.${system};

        start = pkgs.writeShellScript "start" ''
          set -eu
          export PATH=${nixpkgs.lib.makeBinPath [ pkgs.postgresql pkgs.coreutils ]}
          if [ ! -e "$PGDATA/PG_VERSION" ]; then
            initdb --auth-local=trust --auth-host=scram-sha-256 --no-locale --encoding=UTF8
          fi
          exec postgres -c unix_socket_directories=/run/postgresql -c "listen_addresses=*" "$@"
        '';
      in
      {
        # nix run .#default.copyToDockerDaemon && docker run --volume data:/var/lib/postgresql postgresql:v1
        default = pkgs.stowage.buildImage {
          name = "postgresql";
          tag = "v1";
          accounts.users.postgres = { uid = 70; home = "/var/lib/postgresql"; };
          user = "postgres";
          tmp = true;
          directories."/run/postgresql".user = "postgres";
          copyToRoot = pkgs.stowage.dockerTools.binSh;
          config = {
            Entrypoint = [ start ];
            Env = [ "PGDATA=/var/lib/postgresql/data" "PATH=${pkgs.postgresql}/bin" "PGHOST=/run/postgresql" ];
            ExposedPorts."5432/tcp" = { };
            Volumes."/var/lib/postgresql" = { };
            # At SIGTERM, PostgreSQL would wait until all clients are gone.
            StopSignal = "SIGINT";
          };
        };
      });
  };
}
