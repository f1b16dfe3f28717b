"""What every group of benchmarks uses: results, options, teachers, images and clocks."""
