# The Artifact holds whatever state scripts are deployed before it is made.
do_image_mender[depends] += "edgerepl-mender-check:do_deploy"
