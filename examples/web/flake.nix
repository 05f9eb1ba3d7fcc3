{
  description = "A web service: a user of its own, a health check, certificates";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.stowage.url = "git+file:///where/you/cloned/stowage";
  inputs.stowage.inputs.nixpkgs.follows = "nixpkgs";

  outputs = { nixpkgs, stowage, ... }: {
    packages = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system:
      let
        # nixpkgs, with stowage's functions as pkgs.stowage.
        pkgs = stowage.legacyPackages.${system};

        site = pkgs.writeTextDir "index.html" "<h1>It works</h1>\n";
        # nginx logs to the container's output, and writes its files to /tmp.
        settings = pkgs.writeText "nginx.conf" ''
          daemon off;
          pid /tmp/nginx.pid;
          error_log /dev/stderr;
          events { }
          http {
            access_log /dev/stdout;
            client_body_temp_path /tmp/body;
            proxy_temp_path /tmp/proxy;
            fastcgi_temp_path /tmp/fastcgi;
            uwsgi_temp_path /tmp/uwsgi;
            scgi_temp_path /tmp/scgi;
            server {
              listen 8080;
              root ${site};
            }
          }
        '';
      in
      {
        # nix run .#default.copyToDockerDaemon && docker run --publish 8080:8080 web:v1
        default = pkgs.stowage.buildImage {
          name = "web";
          tag = "v1";
          accounts.users.web.uid = 1000;
          user = "web";
          tmp = true;
          # The files that change most often have the topmost layer: an update sends only these.
          layeringHints.last = [ "nginx.conf" "index.html" ];
          config = {
            Cmd = [ "${pkgs.nginx}/bin/nginx" "-e" "/dev/stderr" "-c" settings ];
            ExposedPorts."8080/tcp" = { };
            # The certificates with which the service checks other servers.
            Env = [ "SSL_CERT_FILE=${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt" ];
            Healthcheck = {
              Test = [ "CMD" "${pkgs.curl}/bin/curl" "--fail" "--silent" "http://localhost:8080/" ];
              Interval = 30 * 1000 * 1000 * 1000; # nanoseconds
            };
          };
        };
      });
  };
}
