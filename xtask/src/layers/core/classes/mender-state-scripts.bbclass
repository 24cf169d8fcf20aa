# meta-mender's.
MENDER_STATE_SCRIPTS_DIR = "${B}/state-scripts"
