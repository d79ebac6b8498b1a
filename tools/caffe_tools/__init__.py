"""Read, run, differentiate, export and check Caffe nets."""
