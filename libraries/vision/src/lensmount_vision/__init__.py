"""Pictures, results and models for vision plugins, on numpy and OpenCV.

Rooms, each importing only those before it: `images` (any picture in, network input out), `results` (boxes, masks,
classes, vectors), `device` (both on the device that runs the network), `models` (what every loaded model has, streams),
`towers` (CLIP-like pairs of image and text networks), `cli` (commands). Any distribution may import it.
"""
