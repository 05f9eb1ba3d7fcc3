{ lib, runCommandLocal, sbom, streamer, script, writeText }:

# The result of every function that makes one image: a script that streams the image, with programs that
# explain the image and copy it.
{ function
, prefix
, name
, tag
, spec
, meta
  # The derivations and texts in which `sbom` finds packages.
, roots
, texts
  # The base image, or null.
, fromImage ? null
  # Documents to attach to the image in a registry, or a function of the image's SBOM that returns such
  # documents.
, attach ? [ ]
, passthru ? { }
  # The limits for unpacking the base image, if they are not the default.
, limits ? { }
}:
script {
  inherit function prefix name tag spec meta limits;
  # Use the streamer and not the whole program: otherwise each release of the program would change every
  # script, and with it the tag of every image without a `tag`.
  inherit streamer;
  stream = reference: "stream ${spec} --default-repo-tag ${reference}";
  passthru = { reference, program, withSkopeo }:
    let
      # A base image that this library made lists its packages too.
      baseList = fromImage.sbom or { };
      packages = sbom {
        inherit spec;
        roots = [ roots (baseList.roots or [ ]) ];
        texts = texts ++ baseList.texts or [ ];
        name = reference;
      };
      documents = if builtins.isFunction attach then attach { sbom = packages; } else attach;
      line = { file, type }: "${file}:${type}";
      option = document: " --attach ${lib.escapeShellArg (line document)}";
      attachments =
        if documents == [ ] then null
        else writeText "${baseNameOf name}-attachments" (lib.concatMapStrings (document: "${line document}\n") documents);
      # The reference without a registry.
      parts = builtins.match "([^/]*[.:][^/]*/|localhost/)?(.*):([^:/]*)" reference;
      repository = builtins.elemAt parts 1;
      inRegistry = lib.escapeShellArg "${repository}/${builtins.elemAt parts 2}";
    in
    {
      explain = program "explain" "explain ${spec} --name ${reference}";
      sbom = packages;
      inherit attachments;
      forServe = runCommandLocal "${baseNameOf name}-for-serve" { } ''
        mkdir -p $out/${lib.escapeShellArg repository}
        ln -s ${spec} $out/${inRegistry}
        ${lib.optionalString (attachments != null) "ln -s ${attachments} $out/${inRegistry}@attach"}
      '';
      copyToDockerDaemon = program "copy-to-docker-daemon" "copy ${spec} docker-daemon:${reference}";
      copyToPodman = withSkopeo "copy-to-podman" "copy ${spec} containers-storage:${reference}";
      copyToRegistry = program "copy-to-registry" "copy ${spec} docker://${reference}${lib.concatMapStrings option documents}";
    } // passthru // limits;
}
