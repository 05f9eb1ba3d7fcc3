# The base image as a string for a derivation: the image spec of an image by stowage, whose layers are known;
# the uncompressed archive, if another archive has one; null if there is no base image.
fromImage:
if fromImage == null || fromImage == "" then null
else "${fromImage.spec or fromImage.archive or fromImage}"
