from benchmarks.diffusion.run import main

main()
