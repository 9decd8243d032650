// Measures the bright objects of one image. Argument: IMAGE:FOLDER:SMALLEST_AREA
words = split(getArgument(), ":");
open(words[0]);
run("8-bit");
run("Gaussian Blur...", "sigma=2");
setAutoThreshold("Otsu dark");
run("Set Measurements...", "area mean centroid shape redirect=None decimal=3");
run("Analyze Particles...", "size=" + words[2] + "-Infinity display clear exclude");
saveAs("Results", words[1] + "/objects.csv");
