"""What a pipeline is: the blocks of its file, validated, and what is checked of them at load."""
