{ lib }:

# Checks the annotations of an image or an index: strings by key. Adds the annotations that name a pulled base
# image, unless they are given; null leaves one out.
{
  # The function whose argument these are, for messages.
  function
, annotations
  # The base image, or null.
, fromImage ? null
}:
let
  complain = problem: throw "stowage.${function}: ${problem}";
  checked = key: value:
    if key == "" then complain "`annotations` has a key of no letters"
    else if value == null || lib.isString value then value
    else complain "`annotations.\"${key}\"` must be a string, not ${lib.typeOf value}";
  given =
    if lib.isAttrs annotations then lib.mapAttrs checked annotations
    else complain "`annotations` must be a set of strings, such as `{ \"org.opencontainers.image.source\" = \"https://example.org\"; }`";
  all = (fromImage.baseAnnotations or { }) // given;
in
removeAttrs all (lib.filter (key: all.${key} == null) (lib.attrNames all))
