{ lib, runCommand, stowage, writeText, overridable, unpackLimits }:

/* Tests an image's files and configuration, without running a program of the image.

   The tests are container-structure-test's, version 2: `fileExistenceTests`, `fileContentTests`, `metadataTest` and
   `licenseTests`. The result is a derivation for a flake's `checks`: a file with the results as text. If a test
   fails, the build fails and prints the results.

   Type: structureTest :: AttrSet -> Derivation

   Example:
   structureTest {
       image = self.packages.x86_64-linux.app;
       tests = {
           fileExistenceTests = [ { name = "app"; path = "/bin/app"; isExecutableBy = "any"; } ];
           metadataTest = { user = "1000"; exposedPorts = [ "8080" ]; };
       };
   }
*/
lib.fix (self:
{
  # Result of `buildImage` or a similar function, or an archive of `dockerTools`, `docker save` or skopeo.
  image
  # The tests: an attribute set, in which `schemaVersion` is optional; a file in YAML or JSON; or a list of
  # these.
, tests
  # True to leave out `commandTests`, which would run programs. Otherwise they are an error.
, skipCommands ? false
  # The architecture of the image, by Go's name ("amd64"), if there are several; null for that of the machine
  # that builds.
, architecture ? null
}@arguments: overridable "structureTest" self arguments (
  let
    isFile = value: builtins.isPath value || builtins.isString value || lib.isDerivation value;
    documentOf = value:
      if isFile value then "${value}"
      else if builtins.isAttrs value then writeText "tests.json" (builtins.toJSON ({ schemaVersion = "2.0.0"; } // value))
      else throw "stowage.structureTest: `tests` must be a set, a file or a list of such, not ${builtins.typeOf value}";
    documents = map documentOf (lib.flatten [ tests ]);
    name = baseNameOf (image.imageName or image.name or "image");
    options = lib.optional skipCommands "--skip-commands"
      ++ lib.optionals (architecture != null) [ "--arch" architecture ];
  in
  runCommand "structure-test-${name}" (unpackLimits.environment image) ''
    ${stowage}/bin/stowage test ${lib.escapeShellArgs (options ++ [ "${image.spec or image}" ] ++ documents)} > $out || { cat $out >&2; exit 1; }
  ''
))
