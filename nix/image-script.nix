{ lib, sbom, streamer, script }:

# What every function that makes one image leaves: a script that streams it, with programs that
# explain it and copy it to where it is run.
{ function
, prefix
, name
, tag
, spec
, meta
  # The derivations and texts in which `sbom` finds packages.
, roots
, texts
  # Documents that go beside the image in a registry, or a function of its list of packages that makes some.
, attach ? [ ]
, passthru ? { }
}:
script {
  inherit function prefix name tag spec meta;
  # Not by the whole program: each of its releases would give every image another script, and with it
  # another tag, where none is given.
  inherit streamer;
  stream = reference: "stream ${spec} --default-repo-tag ${reference}";
  passthru = { reference, program, withSkopeo }:
    let
      packages = sbom { inherit spec roots texts; name = reference; };
      documents = if builtins.isFunction attach then attach { sbom = packages; } else attach;
      option = { file, type }: " --attach ${lib.escapeShellArg "${file}:${type}"}";
    in
    {
      explain = program "explain" "explain ${spec}";
      sbom = packages;
      copyToDockerDaemon = program "copy-to-docker-daemon" "copy ${spec} docker-daemon:${reference}";
      copyToPodman = withSkopeo "copy-to-podman" "copy ${spec} containers-storage:${reference}";
      copyToRegistry = program "copy-to-registry" "copy ${spec} docker://${reference}${lib.concatMapStrings option documents}";
    } // passthru;
}
