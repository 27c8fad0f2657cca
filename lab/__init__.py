"""What is measured on this machine and predicted from it: the executor and the simulator together."""
