# Makes users as the image is made.
