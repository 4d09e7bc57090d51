"""The first stage: dataset rows -> request files and index, registered as one submission."""
