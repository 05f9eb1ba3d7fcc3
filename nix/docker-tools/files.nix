{ lib, bashInteractive, cacert, coreutils, linkFarm, runCommandLocal, runtimeShell, shadow, symlinkJoin, writeScript, writeTextDir, pkgs }:

# Files that images need in addition to packages.
{
  # /etc/passwd, /etc/group and /etc/nsswitch.conf, with root and nobody.
  fakeNss = lib.makeOverridable
    ({ extraPasswdLines ? [ ], extraGroupLines ? [ ] }: symlinkJoin {
      name = "fake-nss";
      paths = [
        (writeTextDir "etc/passwd" (lib.concatLines ([
          "root:x:0:0:root user:/var/empty:/bin/sh"
        ] ++ extraPasswdLines ++ [
          "nobody:x:65534:65534:nobody:/var/empty:/bin/sh"
        ])))
        (writeTextDir "etc/group" (lib.concatLines ([ "root:x:0:" ] ++ extraGroupLines ++ [ "nobody:x:65534:" ])))
        (writeTextDir "etc/nsswitch.conf" "hosts: files dns\n")
        (runCommandLocal "var-empty" { } "mkdir -p $out/var/empty")
      ];
    })
    { };

  usrBinEnv = linkFarm "usr-bin-env" [{ name = "usr/bin/env"; path = "${coreutils}/bin/env"; }];

  binSh = linkFarm "bin-sh" [{ name = "bin/sh"; path = "${bashInteractive}/bin/bash"; }];

  # The paths where distributions look for certificates of authorities.
  caCertificates = linkFarm "ca-certificates" (map
    (name: { inherit name; path = "${cacert}/etc/ssl/certs/ca-bundle.crt"; })
    [ "etc/ssl/certs/ca-bundle.crt" "etc/ssl/certs/ca-certificates.crt" "etc/pki/tls/certs/ca-bundle.crt" ]);

  # For `runAsRoot`: makes the files that useradd and similar commands need, if they are missing.
  shadowSetup = ''
    export PATH=${shadow}/bin:$PATH
    mkdir -p /etc/pam.d
    if [[ ! -f /etc/passwd ]]; then
      echo "root:x:0:0::/root:${runtimeShell}" > /etc/passwd
      echo "root:!x:::::::" > /etc/shadow
    fi
    if [[ ! -f /etc/group ]]; then
      echo "root:x:0:" > /etc/group
      echo "root:x::" > /etc/gshadow
    fi
    if [[ ! -f /etc/pam.d/other ]]; then
      printf '%s\n' 'account sufficient pam_unix.so' 'auth sufficient pam_rootok.so' \
        'password requisite pam_unix.so nullok yescrypt' 'session required pam_unix.so' > /etc/pam.d/other
    fi
    if [[ ! -f /etc/login.defs ]]; then
      touch /etc/login.defs
    fi
  '';

  # A script that finds the usual programs, even without environment variables.
  shellScript = name: text: writeScript name ''
    #!${runtimeShell}
    set -e
    export PATH=${coreutils}/bin:/bin
    ${text}
  '';

  # A directory with the files of all derivations, and no links to directories.
  mergeDrvs = { derivations, onlyDeps ? false }: pkgs.runCommand "merge-drvs" { inherit derivations; } (
    if onlyDeps then "echo $derivations > $out" else ''
      mkdir $out
      for derivation in $derivations; do
        if [ -d "$derivation" ]; then
          cp -drf --preserve=mode "$derivation"/. $out/
          chmod -R u+w $out
        else
          tar -C $out -xpf "$derivation"
        fi
      done
    ''
  );
}
